"""Answers, matrices and summaries as HTML; whatever a user wrote is escaped."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=PackageLoader("apps.demo"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
# gradio's HTML component reads what it shows as a JavaScript and Handlebars template: `${` and `{{` must not survive.
_NO_TEMPLATE = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;", "\\": "&#92;"})


def render(template: str, problem: str = "", **values: Any) -> str:
    """Return `template` filled in, or `problem` in its place."""
    html = _ENVIRONMENT.get_template(f"{template}.html.j2").render(problem=problem, **values)
    return html.translate(_NO_TEMPLATE)


def stylesheet() -> str:
    """Return the page's own CSS."""
    source, _, _ = PackageLoader("apps.demo").get_source(_ENVIRONMENT, "style.css")
    return source
