"""A comparison as tables of short texts, which the terminal, Markdown and HTML show alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from intents.comparing import Comparison
from intents.grouping import Estimate, Group
from intents.listing import listed
from intents.pairing import Pair, Test

_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log-loss",
    "commands_obeyed": "commands obeyed",
    "false_action_rate": "false actions",
}


@dataclass(frozen=True)
class Cell:
    """A text and what it means for the reader: good, bad, muted or nothing in particular."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A titled table; the first `num_texts` columns hold words, the others numbers."""

    title: str
    note: str
    header: list[str]
    rows: list[list[Cell]]
    num_texts: int = 1


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the headline, and of several groups the pairs, the intents and the flipped examples."""
    tables = [headline_table(comparison)]
    if len(comparison.groups) > 1:
        tables.append(pair_table(comparison))
        if comparison.pairs[0].actions:
            tables.append(action_table(comparison))
        tables += [intent_table(comparison), flip_table(comparison)]
    return tables


def shortened(table: Table, most_rows: int, most_columns: int) -> Table:
    """Return the table's first rows and columns, and say so in its note."""
    rows, columns = len(table.rows), len(table.header)
    if rows <= most_rows and columns <= most_columns:
        return table
    cut = [f"{most_rows} of {rows} rows"] * (rows > most_rows) + [f"{most_columns} of {columns} columns"] * (
        columns > most_columns
    )
    return Table(
        table.title,
        f"{table.note} Here the first {' and '.join(cut)}; --html, --md and --json have all.",
        table.header[:most_columns],
        [row[:most_columns] for row in table.rows[:most_rows]],
        table.num_texts,
    )


def headline_table(comparison: Comparison) -> Table:
    """Return a row per group, and under each group of seeds a row per seed."""
    reference = comparison.groups[0]
    metrics = list(reference.metrics)
    rows = []
    for group in comparison.groups:
        changed = "reference" if group is reference else describe_changes(group.changes)
        rows.append([Cell(group.name), Cell(changed), *(_estimate(group, metric) for metric in metrics)])
        if len(group.results) > 1:
            for result in group.results:
                seeds = ", ".join(f"{key} {value}" for key, value in result.seeds.items() if _varies(group, key))
                values = [Cell(_number(metric, float(result.metrics[metric])), "muted") for metric in metrics]
                rows.append([Cell(f"  {result.name}", "muted"), Cell(seeds, "muted"), *values])
    level = _level(comparison.confidence_level)
    of_seeds = f" Of seeds: mean ± standard deviation, {level} t interval of the mean."
    return Table(
        f"Results on {comparison.num_rows} test rows",
        f"In brackets the {level} interval: what other test rows could show."
        + (of_seeds if any(group.deviation for group in comparison.groups) else ""),
        ["", f"differs from {reference.name} in", *(_NAMES[metric] for metric in metrics)],
        rows,
        num_texts=2,
    )


def _varies(group: Group, key: str) -> bool:
    return len({str(result.settings.get(key)) for result in group.results}) > 1


def describe_changes(changes: dict[str, tuple[Any, Any]]) -> str:
    """Return settings as "train.seed 0 → 1", and which code or raw data is another."""
    settings = [f"{key} {_setting(a)} → {_setting(b)}" for key, (a, b) in changes.items() if "/" not in key]
    files = [key for key in changes if "/" in key]
    said = [*settings, *([f"other {listed(files, 3)}"] if files else [])]
    return "; ".join(said) or "nothing: the same settings and seeds, run again"


def _setting(value: Any) -> str:
    return "none" if value is None else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _level(share: float) -> str:
    return f"{100 * share:.4g} %"


def _number(metric: str, value: float) -> str:
    return f"{value:.3f}" if metric == "log_loss" else _percent(value)


def _estimate(group: Group, metric: str) -> Cell:
    estimate = group.metrics[metric]
    text = _number(metric, estimate.value)
    if metric in group.deviation:
        text += f" ± {_number(metric, group.deviation[metric]).removesuffix(' %')}"
    return Cell(text + _interval(estimate, lambda value: _number(metric, value).removesuffix(" %")))


def _interval(estimate: Estimate, show: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{show(estimate.low)}, {show(estimate.high)}]"


def pair_table(comparison: Comparison) -> Table:
    """Return a row per pair, those with the reference first."""
    level = comparison.confidence_level
    adjusted = len(comparison.pairs) > 1
    methods = sorted({test.method for pair in comparison.pairs for test in (pair.accuracy, pair.macro_f1)})
    rows = [
        [
            Cell(f"{pair.first} → {pair.second}"),
            *_test_cells(pair.accuracy, level, adjusted),
            *_test_cells(pair.macro_f1, level, adjusted),
            Cell(verdict(pair, level)),
        ]
        for pair in comparison.pairs
    ]
    p = "p (Holm)" if adjusted else "p"
    return Table(
        "Could it be luck?",
        f"Differences in points with {_level(level)} intervals, on the same test rows."
        f" Tests: {', '.join(methods)}."
        + (f" Each p is adjusted for {len(comparison.pairs)} pairs (Holm); JSON has both." if adjusted else ""),
        ["", "accuracy", p, "macro-F1", p, "verdict"],
        rows,
    )


def action_table(comparison: Comparison) -> Table:
    """Return a row per pair: what a car would do, thresholds included."""
    level, adjusted = comparison.confidence_level, len(comparison.pairs) > 1
    rows = []
    for pair in comparison.pairs:
        obeyed, false = (pair.actions[metric] for metric in ("commands_obeyed", "false_action_rate"))
        cells = [*_test_cells(obeyed, level, adjusted), *_test_cells(false, level, adjusted, fewer_is_better=True)]
        said = [
            f"{'more' if test.difference.value > 0 else 'fewer'} {what}"
            for test, what in ((obeyed, "commands obeyed"), (false, "false actions"))
            if test.p_holm < 1 - level
        ]
        rows.append([Cell(f"{pair.first} → {pair.second}"), *cells, Cell(" and ".join(said) or "could be luck")])
    p = "p (Holm)" if adjusted else "p"
    return Table(
        "What would a car do differently?",
        f"Thresholds included; differences in points with {_level(level)} intervals, tested as above.",
        ["", "commands obeyed", p, "false actions", p, "verdict"],
        rows,
    )


def _test_cells(test: Test, level: float, adjusted: bool, fewer_is_better: bool = False) -> list[Cell]:
    sure = test.p_holm < 1 - level
    tone = ("good" if (test.difference.value > 0) != fewer_is_better else "bad") if sure else ""
    return [
        Cell(_points(test.difference.value) + _interval(test.difference, _points), tone),
        Cell(_p(test.p_holm if adjusted else test.p), tone),
    ]


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def verdict(pair: Pair, confidence_level: float) -> str:
    """Return in words what the tests of a pair say."""
    said = []
    for name, test in (("accuracy", pair.accuracy), ("macro-F1", pair.macro_f1)):
        if test.p_holm < 1 - confidence_level:
            said.append(f"{'higher' if test.difference.value > 0 else 'lower'} {name}")
    differences = [test.difference for test in (pair.accuracy, pair.macro_f1)]
    if all(difference.low == difference.high == 0 for difference in differences):
        return "right on the same rows"
    return " and ".join(said) if said else "could be luck"


def intent_table(comparison: Comparison) -> Table:
    """Return F1 of each intent in the reference, and the difference in the other groups."""
    reference, *others = comparison.groups
    rows = []
    for scores in comparison.intents:
        base = scores.f1[reference.name]
        cells = [Cell(scores.intent), Cell(str(scores.examples)), Cell(_percent(base))]
        for group in others:
            change = scores.f1[group.name] - base
            tone = "muted" if abs(change) < 0.0005 else "good" if change > 0 else "bad"
            cells.append(Cell(_points(change), tone))
        rows.append(cells)
    return Table(
        "F1 of each intent",
        "The reference's, then the change in points; the intents that change most first.",
        ["intent", "test rows", reference.name, *(group.name for group in others)],
        rows,
    )


def flip_table(comparison: Comparison) -> Table:
    """Return the rows whose answer went from right to wrong, then those from wrong to right."""
    seeds = any(group.deviation for group in comparison.groups)
    rows = []
    for flip in comparison.flips:
        share = f" ({flip.before_share:.0%} → {flip.after_share:.0%} of the seeds right)" if seeds else ""
        rows.append(
            [
                Cell(flip.group),
                Cell(flip.text),
                Cell(flip.intent),
                Cell(flip.before, "bad" if not flip.broken else ""),
                Cell(flip.after + share, "bad" if flip.broken else "good"),
                Cell(_percent(flip.confidence)),
            ]
        )
    broken = sum(flip.broken for flip in comparison.flips)
    return Table(
        "Examples that flipped",
        f"{broken} from right to wrong, then {len(rows) - broken} from wrong to right; surest wrong answers first.",
        ["in", "text", "true intent", comparison.groups[0].name, "then", "confidence of the wrong one"],
        rows,
        num_texts=5,
    )
