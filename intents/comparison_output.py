"""A comparison on a terminal, as JSON, as Markdown and as one self-contained HTML page."""

import json
from dataclasses import asdict
from typing import Any, TextIO

from intents.comparing import Comparison
from intents.comparison_tables import Table, comparison_tables, shortened
from intents.templating import template_environment
from intents.texts import printable

_TERMINAL_ROWS, _TERMINAL_COLUMNS = 20, 8
_STYLES = {"": "", "good": "green", "bad": "red", "muted": "dim"}


def print_comparison(comparison: Comparison, file: TextIO) -> None:
    """Print the tables with rich, long ones shortened; a pipe or a log file gets wide lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=file, width=None if file.isatty() else 180)
    for table in comparison_tables(comparison):
        short = shortened(table, _TERMINAL_ROWS, _TERMINAL_COLUMNS)
        console.print(Text(f"\n{short.title}", style="bold"))
        console.print(Text(short.note, style="dim"))
        grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(short.header):
            is_text = index < short.num_texts or name == "verdict"
            grid.add_column(Text(name), justify="left" if is_text else "right", overflow="fold")
        for row in short.rows:
            grid.add_row(*(Text(printable(cell.text), style=_STYLES[cell.tone]) for cell in row))
        console.print(grid)
    for note in comparison.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def to_json(comparison: Comparison) -> str:
    """Return everything, unrounded."""
    groups = [
        {
            "name": group.name,
            "metrics": {name: asdict(estimate) for name, estimate in group.metrics.items()},
            "deviation": group.deviation,
            "changes": {key: {"reference": a, "value": b} for key, (a, b) in group.changes.items()},
            "results": [
                {"name": r.name, "seeds": r.seeds, "metrics": r.metrics, "settings": r.settings} for r in group.results
            ],
        }
        for group in comparison.groups
    ]
    content: dict[str, Any] = {
        "reference": comparison.groups[0].name,
        "test_rows": comparison.num_rows,
        "confidence_level": comparison.confidence_level,
        "groups": groups,
        "pairs": [asdict(pair) for pair in comparison.pairs],
        "intents": [asdict(scores) for scores in comparison.intents],
        "flips": [{**asdict(flip), "right_to_wrong": flip.broken} for flip in comparison.flips],
        "notes": comparison.notes,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def to_markdown(comparison: Comparison) -> str:
    """Return the tables in GitHub's Markdown."""
    parts = []
    for table in comparison_tables(comparison):
        lines = [_markdown_row([_escaped(name) for name in table.header]), _markdown_row(_rulers(table))]
        lines += [_markdown_row([_escaped(cell.text) for cell in row]) for row in table.rows]
        parts.append(f"## {_escaped(table.title)}\n\n{_escaped(table.note)}\n\n" + "\n".join(lines))
    parts += [f"- {_escaped(note)}" for note in comparison.notes]
    return "\n\n".join(parts) + "\n"


def _rulers(table: Table) -> list[str]:
    return [":--" if index < table.num_texts else "--:" for index in range(len(table.header))]


def _markdown_row(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    for character in "\\`*_[]<>|#~&":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def to_html(comparison: Comparison) -> str:
    """Return one page; texts from the data are escaped, nothing is loaded from elsewhere."""
    environment = template_environment("intents", autoescape=True)
    return environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        tables=comparison_tables(comparison),
        charts=[_interval_chart(comparison, metric) for metric in ("accuracy", "macro_f1")],
    )


def _interval_chart(comparison: Comparison, metric: str) -> dict[str, Any]:
    """Return where points and intervals lie, in per cent of the chart's width, and its end labels."""
    estimates = {group.name: group.metrics[metric] for group in comparison.groups}
    ends = [end for e in estimates.values() for end in (e.value, e.low, e.high) if end is not None]
    low, high = min(ends), max(ends)
    width = (high - low) or 0.01

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    rows = [
        {
            "name": name,
            "value": e.value,
            "at": place(e.value),
            "low": place(e.value if e.low is None else e.low),
            "high": place(e.value if e.high is None else e.high),
        }
        for name, e in estimates.items()
    ]
    title = "Accuracy" if metric == "accuracy" else "Macro-F1"
    return {"metric": title, "low": low, "high": high, "rows": rows}
