"""From what was measured to tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.training.jobs import OWN
from benchmarks.training.timeline import time_to_accuracy
from intents.scoring import share_interval

NOTEBOOK_INTERVAL = 10  # steps between its evaluations
COLUMNS = {
    "texts_per_s": "texts/s",
    "end_to_end": "end to end",
    "useful_tokens_per_s": "useful tokens/s",
    "padding_share": "padding",
    "peak_rss_mib": "peak RSS, MiB",
    "share_fp32": "share of fp32 rate",
    "share_bf16": "share of bf16 rate",
    "to_target": "s to target",
    "to_target_wall": "s with evaluations",
    "to_own": "s to 98 % of own",
    "accuracy": "validation accuracy",
}
LEGEND = """\
texts/s and useful tokens/s (padding aside): steady state, start-up, first steps, evaluations and checkpoints aside. End
to end: texts trained on per second of the whole process (notebook: extrapolated from its step, its evaluation of a few
rows and its checkpoint to an evaluation of all rows every 10 steps). Shares: useful operations (benchmarks/training/
flops.py) per second, of the best rate of 2048-wide matrix products measured in the same run. Target: 98 % of the
pipeline's final validation accuracy; seconds from the start of training (model and data loaded) to the first evaluation
that shows it, evaluations aside and included; setfit: with one fit of the head, and one evaluation. Accuracy: of the
state that a system ends with, exact 95 % interval.
"""
Figures = dict[str, Any]


def figures(training: Mapping[str, Any], rates: Mapping[str, float], target: float | None) -> Figures:
    """Return the figures of one training; None where there is none. `rates` are the machine's, in GFLOP/s."""
    texts_per_s = training["texts_per_step"] / training["steady_step_s"]
    gflop_per_s = texts_per_s * training["gflop_per_text"]
    accuracy, evaluations = training["final_accuracy"], training["evaluations"]
    found: Figures = {
        "system": training["job"]["system"],
        "learning_rate": training["job"]["learning_rate"],
        "texts_per_s": texts_per_s,
        "end_to_end": end_to_end(training),
        "useful_tokens_per_s": texts_per_s * training["useful_tokens_per_text"],
        "padding_share": training["padding_share"],
        "peak_rss_mib": training["peak_rss_mib"],
        "share_fp32": gflop_per_s / rates["fp32"],
        "share_bf16": gflop_per_s / rates["bf16"] if "bf16" in rates else None,
        "accuracy": None,
    }
    if found["system"] != "notebook" and accuracy is not None:
        own = 0.98 * accuracy
        found["accuracy"] = (accuracy, *_interval(accuracy, training["num_validation"]))
        found["to_own"] = time_to_accuracy(evaluations, own, "training_s")
        if target is not None:
            found["to_target"] = time_to_accuracy(evaluations, target, "training_s") or math.inf
            found["to_target_wall"] = time_to_accuracy(evaluations, target, "wall_s") or math.inf
    return found


def end_to_end(training: Mapping[str, Any]) -> float | None:
    """Return the texts per second from the start of the process to its end; for the notebook as it would have been."""
    system = training["job"]["system"]
    if system != "notebook":
        # SetFit's own run has no evaluations.
        aside_s = sum(seconds for why, seconds in training["pauses_s"] if why == "evaluation" and system == "setfit")
        return training["texts_per_step"] * training["num_steps"] / (training["seconds"] - aside_s)
    pauses = {why: seconds for why, seconds in training["pauses_s"]}
    if pauses.keys() < {"evaluation", "checkpoint"}:
        return None
    evaluation_s = pauses["evaluation"] / training["num_validation"] * training["num_validation_all"]
    seconds = NOTEBOOK_INTERVAL * training["steady_step_s"] + evaluation_s + pauses["checkpoint"]
    return NOTEBOOK_INTERVAL * training["texts_per_step"] / seconds


def _interval(accuracy: float, total: int) -> tuple[float, float]:
    return share_interval(round(accuracy * total), total, 0.95)


def best_rates(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the highest rate of each precision."""
    return {name: max(rates[name] for rates in measured) for name in measured[0]}


def rows_of(measured: Mapping[str, Any]) -> tuple[list[Figures], float | None]:
    """Return the figures of every training on one data set, and the target accuracy, None without the pipeline."""
    finals = [run["final_accuracy"] for run in measured["trainings"] if run["job"]["system"] == "pipeline"]
    target = 0.98 * finals[0] if finals else None
    rates = best_rates(measured["rates"])
    return [figures(training, rates, target) for training in measured["trainings"]], target


def chosen(rows: Sequence[Figures]) -> dict[str, Figures]:
    """Return the training that counts of each system.

    It is the most accurate one; of SetFit's the one that is soonest at the target, then the most accurate.
    """
    best: dict[str, Figures] = {}
    for row in rows:
        before = best.get(row["system"])
        if before is None or _rank(row) > _rank(before):
            best[row["system"]] = row
    return best


def _rank(row: Figures) -> tuple[float, float]:
    accuracy = row["accuracy"][0] if row["accuracy"] else 0.0
    return (-row.get("to_target", math.inf) if row["system"] == "setfit" else 0.0, accuracy)


def section(results: Mapping[str, Any]) -> str:
    """Return the Markdown of a run."""
    conditions = results["conditions"]
    about = ", ".join(f"{name} {value}" for name, value in conditions.items() if name not in ("date", "commit"))
    parts = [f"## {conditions['date']}, commit {conditions['commit']}\n\n{about}\n\n{LEGEND}"]
    parts += [_set_section(name, measured) for name, measured in results["sets"].items()]
    if results.get("startup_s"):
        seconds = ", ".join(f"{value:.1f}" for value in results["startup_s"])
        parts.append(f"`python -m stages.train` before its first optimizer step: {seconds} s (goal: 6)\n")
    return "\n".join(parts)


def _set_section(set_name: str, measured: Mapping[str, Any]) -> str:
    rows, target = rows_of(measured)
    counted = chosen(rows)
    by_precision = {name: [rates[name] for rates in measured["rates"]] for name in measured["rates"][0]}
    spans = [f"{min(rates):.0f} to {max(rates):.0f} GFLOP/s in {name}" for name, rates in by_precision.items()]
    lines = [
        f"### {set_name}",
        "",
        f"Matrix products, before and after each system: {', '.join(spans)}."
        + ("" if target is None else f" Target: {target:.4f}."),
        "",
        f"| system | {' | '.join(COLUMNS.values())} |",
        "|" + "---|" * (len(COLUMNS) + 1),
    ]
    for row in rows:
        system = row["system"] + ("" if row["learning_rate"] is None else f", {row['learning_rate']:g}")
        if counted[row["system"]] is row:
            system = f"**{system}**"
        lines.append(f"| {system} | {' | '.join(_shown(column, row.get(column)) for column in COLUMNS)} |")
    return "\n".join([*lines, "", *_goals(counted)]) + "\n"


def _goals(counted: Mapping[str, Figures]) -> list[str]:
    """Return the figures of the pipeline, as it is and in its two quicker ways, against the goals."""
    lines = []
    for name in OWN:
        ours = counted.get(name)
        if ours is None:
            continue
        found = [] if ours["share_bf16"] is None else [("share of the bf16 rate", f"{ours['share_bf16']:.0%}", "60 %")]
        for system, goal in (("notebook", "150 x"), ("trainer", "4 x")):
            if system in counted:
                ratio = ours["texts_per_s"] / counted[system]["texts_per_s"]
                found.append((f"texts/s against {system}, evaluations and checkpoints aside", f"{ratio:.1f} x", goal))
                if ours["end_to_end"] and counted[system]["end_to_end"]:
                    ratio = ours["end_to_end"] / counted[system]["end_to_end"]
                    found.append((f"texts/s against {system}, end to end", f"{ratio:.1f} x", goal))
        if "setfit" in counted and "to_target" in ours:  # without the pipeline there is no target
            theirs, own = counted["setfit"]["to_target"], ours["to_target"]
            laggards = [system for system, seconds in ((name, own), ("setfit", theirs)) if math.isinf(seconds)]
            within = f"not reached by {' and '.join(laggards)}" if laggards else f"{theirs / own:.1f} x"
            found.append(("seconds to target against setfit", within, "5 x"))
        lines += [f"| {name} | {' | '.join(row)} |" for row in found]
    return ["| system | figure | measured | goal |", "|---|---|---|---|", *lines] if lines else []


def _shown(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "accuracy":
        return "{:.4f} ({:.4f} to {:.4f})".format(*value)
    if column in ("padding_share", "share_fp32", "share_bf16"):
        return f"{value:.1%}"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if value >= 1000 or column == "peak_rss_mib" else f"{value:.1f}"
