"""The one way in which pages are made from templates."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def template_environment(package: str, *, autoescape: bool) -> Environment:
    """Return the environment of the templates in `package`.

    A variable that a template misses is an error. `autoescape` is for HTML: what comes from data cannot become markup.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
