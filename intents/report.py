"""The evaluation as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intents.answers import Answers
from intents.evaluating import Table, cautions, confusion_matrix
from intents.templating import template_environment
from intents.trust import chance_of_more

_WIDTH, _HEIGHT = 300, 100  # of a curve of the training, in SVG units
_SIDE = 200  # of a square figure
_MOST_IN_MATRIX = 40  # intents; a larger confusion matrix cannot be read, and makes the page megabytes long
_HARDLY_CHANCE = 0.025
_NUM_CONFUSIONS = 50  # pairs of intents in the list of what is taken for what


@dataclass(frozen=True)
class Subject:
    """What the page is about, by the settings, and by the weights themselves."""

    title: str
    encoder: str
    method: str
    source: str
    weights_sha256: str
    max_false_action_rate: float | None
    num_validation: int  # its texts that ask for nothing, and how many of them the limit lets through
    num_allowed: int | None


def render_report(
    subject: Subject,
    answers: Answers,
    metrics: dict[str, Any],
    tables: Mapping[str, Table],
    trust: Mapping[str, Table],
    curves: Table,
    lists: Mapping[str, Table],
    confidence_level: float,
) -> str:
    """Return the page; texts from the data are escaped, nothing is loaded from elsewhere.

    `confidence_level` is that of the intervals in `metrics` and in the tables; `lists` are the texts of `wrong_texts`.
    """
    environment = template_environment("intents", autoescape=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    before, after = trust["before_after"]
    confusion_cc = confusion_matrix(answers.likeliest)
    num_false, num_harmless = int(answers.acted_n[answers.harmless_n].sum()), int(answers.harmless_n.sum())
    chance = 1.0
    if subject.num_allowed is not None and subject.num_validation:
        chance = chance_of_more(num_false, num_harmless, subject.num_allowed, subject.num_validation)
    confusions = _confusions(answers.intents, answers.likeliest.names, confusion_cc)
    return environment.get_template("report.html.j2").render(
        subject=subject,
        headline=metrics["test"],
        thresholds_count=answers.likeliest is answers,
        matrix=_matrix_rows(answers.intents, confusion_cc) if len(answers.intents) <= _MOST_IN_MATRIX else None,
        confusions=confusions[:_NUM_CONFUSIONS],
        num_confusions=len(confusions),
        num_intents=len(answers.intents),
        answers=answers.likeliest.names,
        calibration=answers.calibration,
        **{name: tables[name] for name in ("averages", "per_intent", "per_kind")},
        before=before,
        after=after,
        trust=trust,
        figures=_trust_figures(trust),
        curves=curves,
        lines=_curve_lines(curves),
        **lists,
        cautions=cautions(tables["ladder"], tables["per_intent"]),
        ladder=tables["ladder"],
        level=f"{100 * confidence_level:g} %",
        behaviour=tables["behaviour"],
        failed_pairs=[row for row in tables["behaviour_pairs"] if not row["passed"]],
        num_mistakes=int((answers.answerable.labels_n != answers.answerable.likeliest.predicted_n).sum()),
        num_never=int((~answers.answerable_n).sum()),
        never=" and ".join(answers.never),
        num_commands=int((~answers.harmless_n).sum()),
        num_harmless=num_harmless,
        num_false=num_false,
        hardly_chance=chance < _HARDLY_CHANCE,
        num_refused=int((answers.predicted_n != answers.labels_n)[~answers.harmless_n].sum()),
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


def _confusions(intents: Sequence[str], names: Sequence[str], confusion_cc: NDArray[np.int64]) -> Table:
    """Return the pairs of a true intent and a wrong answer, the most frequent first."""
    wrong_cc = confusion_cc.copy()
    np.fill_diagonal(wrong_cc, 0)
    pairs = sorted(np.argwhere(wrong_cc).tolist(), key=lambda pair: -wrong_cc[*pair])
    totals = confusion_cc.sum(1)
    return [
        {
            "intent": intents[row],
            "answer": names[column],
            "count": int(wrong_cc[row, column]),
            "texts": int(totals[row]),
        }
        for row, column in pairs
    ]


def _curve_lines(curves: Table) -> dict[str, str]:
    """Return SVG polyline points for each metric of the training curves."""
    lines = {}
    for name in ("train_loss", "log_loss", "accuracy", "macro_f1"):
        values = np.array([float(point[name]) for point in curves])
        finite_n = np.isfinite(values)  # training may diverge after the state that was kept
        top = 1.0 if name in ("accuracy", "macro_f1") else float(values[finite_n].max(initial=0)) or 1.0
        values = np.where(finite_n, values, top)
        values = np.repeat(values, 2) if len(values) == 1 else values  # a line of one point shows nothing
        x = np.linspace(0, 1, len(values))
        lines[name] = _points(x, values / top, _WIDTH, _HEIGHT)
    return lines


def _trust_figures(trust: Mapping[str, Table]) -> dict[str, Any]:
    """Return SVG points of the square figures; `top` is the highest rate that each of their axes shows."""

    def column(table: str, name: str) -> NDArray[np.float64]:
        return np.array([row[name] for row in trust[table]])

    risk = column("coverage_risk", "risk")
    top_risk = max(0.1, float(risk.max()))
    figures: dict[str, Any] = {
        name: _points(column(f"reliability_{name}", "confidence"), column(f"reliability_{name}", "accuracy"))
        for name in ("before", "after")
    }
    figures["coverage"] = _points(column("coverage_risk", "coverage"), risk / top_risk)
    figures["top_risk"] = top_risk
    if trust["actions"]:
        rate = column("actions", "false_action_rate")
        figures["top_rate"] = max(0.02, float(rate.max()))
        figures["actions"] = _points(rate / figures["top_rate"], column("actions", "commands_obeyed"))
    return figures


def _points(x: NDArray[np.float64], y: NDArray[np.float64], width: int = _SIDE, height: int = _SIDE) -> str:
    """Return SVG polyline points of values between 0 and 1, the origin at the lower left."""
    return " ".join(f"{width * a:.1f},{height - height * b:.1f}" for a, b in zip(x, y, strict=True))
