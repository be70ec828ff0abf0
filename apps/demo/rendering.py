"""Answers, matrices and summaries as HTML; whatever a user wrote is escaped."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=PackageLoader("apps.demo"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, problem: str = "", **values: Any) -> str:
    """Return `template` filled in, or `problem` in its place."""
    return _ENVIRONMENT.get_template(f"{template}.html.j2").render(problem=problem, **values)


def stylesheet() -> str:
    """Return the page's own CSS."""
    source, _, _ = PackageLoader("apps.demo").get_source(_ENVIRONMENT, "style.css")
    return source
