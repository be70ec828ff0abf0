"""Answers, matrices and summaries as HTML; whatever a user wrote is escaped."""

from typing import Any

from intents.templating import template_environment

_ENVIRONMENT = template_environment("apps.demo", autoescape=True)


def render(template: str, problem: str = "", **values: Any) -> str:
    """Return `template` filled in, or `problem` in its place."""
    return _ENVIRONMENT.get_template(f"{template}.html.j2").render(problem=problem, **values)


def stylesheet() -> str:
    """Return the page's own CSS."""
    return _ENVIRONMENT.get_template("style.css").render()
