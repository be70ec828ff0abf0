"""Figures of runs: what is read from the pipeline's metrics, their means over seeds, tables of them."""

import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from benchmarks.public.pipeline import Pipeline

PUBLISHED_PATH = Path(__file__).with_name("published.csv")
CONFIDENCE_LEVEL = 0.95
TITLES = {
    "banking77": "BANKING77",
    "clinc150": "CLINC150",
    "clinc150-oos-plus": "CLINC150 with 250 out-of-scope training rows (oos+)",
    "banking77-10-shot": "BANKING77, 10 rows per intent",
    "banking77-10-shot-unlabelled": "BANKING77, 10 rows per intent and the other texts without labels",
}
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "in_scope_accuracy": "in-scope accuracy",
    "out_of_scope_recall": "out-of-scope recall",
    "in_scope_accuracy_without_threshold": "in-scope accuracy without threshold",
}
Run = dict[str, Any]
INTRODUCTION = """\
# The pipeline on public data sets

Made by `make benchmark-public`. Per cent on the official test rows (an exact repeat counts once): mean over seeds with
its 95 % t interval. Settings, epochs and thresholds were chosen on validation. Training rows that nearly repeat
test rows were kept, as in the published comparisons. Seconds are those of the train stage from start to end, those of
the CPU in brackets; results.json has every seed's figures.

- In-scope accuracy: share of the texts of the 150 intents answered rightly; the answer `oos` counts as wrong.
- Out-of-scope recall: share of the out-of-scope texts answered `oos`, with the same model and threshold. Both figures
  are those of Larson et al. 2019.
- oos+: the training data of that condition in the paper, 250 out-of-scope rows instead of 100; the same validation and
  test rows.
- 10 rows per intent: seed k trains on a sample of its own (benchmarks/public/sets.py draws it), so the interval holds
  both sources of chance. 20 more rows per intent are the validation split, as in the published comparisons.
- The other texts without labels: self-training, on those other training texts that are unlike any validation and test
  row. Of the published systems CPFT, too, was pretrained on unlabelled texts (of several intent data sets), and ICDA
  learns from texts that a language model wrote.
- Published figures are quoted from where "source" says; unverified ones were not looked up in the paper.
"""


def figures(pipeline: Pipeline, out_of_scope: bool, tested: bool) -> dict[str, dict[str, float]]:
    """Return a run's figures per split, shares from 0 to 1."""
    trained, calibrated = pipeline.metrics("train"), pipeline.metrics("calibrate")
    validation = dict(trained["validation"]) | {"best_epoch": trained["best"]["epoch"]}
    if out_of_scope:
        validation |= {"threshold": calibrated["threshold"], **_scope(calibrated["validation"])}
        validation["in_scope_accuracy_without_threshold"] = calibrated["before_after"][0]["commands_obeyed"]
    if not tested:
        return {"validation": validation}
    found = pipeline.metrics("evaluate")["test"]
    test = {name: found[name] for name in ("accuracy", "macro_f1", "log_loss", "examples")}
    if out_of_scope:
        before = _rows(pipeline.place_of("metrics/tables") / "calibration.csv")[0]
        test |= _scope(found)
        test["in_scope_accuracy_without_threshold"] = float(before["commands_obeyed"])
    return {"validation": validation, "test": test}


def _scope(acting: dict[str, float]) -> dict[str, float]:
    """Return Larson's figures: his queries in scope are what the pipeline calls commands."""
    return {
        "in_scope_accuracy": acting["commands_obeyed"],
        "out_of_scope_recall": round(1 - acting["false_action_rate"], 4),
    }


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its t interval; not a number where there is one value."""
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    quantile = float(student.ppf((1 + CONFIDENCE_LEVEL) / 2, len(values) - 1))
    return statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def per_cent(values: Sequence[float]) -> str:
    """Return mean and interval of shares as text."""
    mean, half = mean_interval([100 * value for value in values])
    return f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"


def shown(split: dict[str, float]) -> list[str]:
    """Return which of a run's figures the tables show."""
    names = list(NAMES)[2:] if "in_scope_accuracy" in split else list(NAMES)[:2]
    return [name for name in names if name in split]


def section(name: str, runs: Sequence[Run]) -> str:
    """Return the Markdown of a set: ours, then what others published."""
    columns = shown(runs[0]["test"])
    seconds, cpu_seconds = (statistics.fmean(run[cost]["train"] for run in runs) for cost in ("seconds", "cpu_seconds"))
    machines = [run["machine"] for run in runs]
    where = sorted({f"{found['date']}, commit {found['commit']}, {found['processor']}" for found in machines})
    lines = [
        f"## {TITLES[name]}",
        "",
        f"{runs[0]['test']['examples']} test rows; {len(runs)} seeds; {seconds:.0f} seconds per run"
        f" ({cpu_seconds:.0f}).{_threshold(runs)} {'; '.join(where)}.",
        "",
        *_header(["system", *(NAMES[column] for column in columns), "source"]),
    ]
    for split in ("test", "validation"):
        cells = [per_cent([run[split][column] for run in runs]) for column in columns]
        who = "**this pipeline**" if split == "test" else "the same on validation"
        lines.append(_row([who, *cells, "measured"]))
    for row in _rows(PUBLISHED_PATH):
        if row["set"] == name:
            lines.append(_row([row["system"], *(row.get(column) or "" for column in columns), row["source"]]))
    return "\n".join(lines) + "\n"


def _threshold(runs: Sequence[Run]) -> str:
    found = [run["validation"]["threshold"] for run in runs if "threshold" in run["validation"]]
    return (
        f" Least probability of an answer, chosen on validation: {min(found):.3f} to {max(found):.3f}." if found else ""
    )


def experiment_table(experiments: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown of what was tried, on validation."""
    lines = [
        "## Tried, on validation",
        "",
        *_header(["set", "settings", "seeds", "figures", "seconds", "date, commit"]),
    ]
    for tried in experiments:
        runs = tried["runs"]
        cells = [
            f"{NAMES[column]} {per_cent([run['validation'][column] for run in runs])}"
            for column in shown(runs[0]["validation"])
        ]
        seconds = statistics.fmean(run["seconds"]["train"] for run in runs)
        settings = ", ".join(tried["settings"]) or "as in its file"
        stamp = f"{runs[0]['machine']['date']}, {runs[0]['machine']['commit']}"
        lines.append(_row([tried["set"], settings, str(len(runs)), "; ".join(cells), f"{seconds:.0f}", stamp]))
    return "\n".join(lines) + "\n"


def _header(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
