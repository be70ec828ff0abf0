"""The evaluation as one self-contained HTML page."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from intents.evaluating import Table


def render_report(
    intents: Sequence[str],
    headline: dict[str, Any],
    confusion_cc: NDArray[np.int64],
    averages: Table,
    per_intent: Table,
    per_kind: Table,
    curves: Table,
    mistakes: Table,
    num_mistakes: int,
) -> str:
    """Return the page; texts from the data are escaped, nothing is loaded from elsewhere."""
    environment = Environment(
        loader=PackageLoader("intents"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    return environment.get_template("report.html.j2").render(
        headline=headline["test"],
        matrix=_matrix_rows(intents, confusion_cc),
        intents=intents,
        averages=averages,
        per_intent=per_intent,
        per_kind=per_kind,
        curves=curves,
        lines=_curve_lines(curves),
        mistakes=mistakes,
        num_mistakes=num_mistakes,
    )


def _matrix_rows(intents: Sequence[str], confusion_cc: NDArray[np.int64]) -> Table:
    shares = confusion_cc / np.maximum(confusion_cc.sum(1, keepdims=True), 1)
    return [
        {
            "intent": intent,
            "cells": [
                {"count": int(count), "share": float(share), "right": row == column}
                for column, (count, share) in enumerate(zip(confusion_cc[row], shares[row], strict=True))
            ],
        }
        for row, intent in enumerate(intents)
    ]


def _curve_lines(curves: Table) -> dict[str, str]:
    """Return SVG polyline points, 300 wide and 100 high, for each metric of the training curves."""
    lines = {}
    for name in ("train_loss", "log_loss", "accuracy", "macro_f1"):
        values = np.array([float(point[name]) for point in curves])
        top = 1.0 if name in ("accuracy", "macro_f1") else float(values.max()) or 1.0
        x = np.linspace(0, 300, len(values)) if len(values) > 1 else np.array([150.0])
        lines[name] = " ".join(f"{a:.1f},{100 - 100 * b / top:.1f}" for a, b in zip(x, values, strict=True))
    return lines
