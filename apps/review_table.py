"""A review on a terminal."""

from collections.abc import Sequence
from typing import TextIO

from intents.review_files import MISLABELLED, NEIGHBOUR, UNLABELLED, ReviewRow
from intents.texts import printable

_TITLES = {
    MISLABELLED: ("Probably mislabelled", "by out-of-fold predictions; the least credible first"),
    NEIGHBOUR: ("Near neighbours with different intents", "in pairs; at most one of each is likely to be wrong"),
    UNLABELLED: ("Most worth labelling", "the least certain first"),
}


def print_review(rows: Sequence[ReviewRow], file: TextIO) -> None:
    """Print a table for each reason; a pipe or a log file gets wide lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, width=None if file.isatty() else 180)
    files = sorted({row.file for row in rows})
    for reason, (title, note) in _TITLES.items():
        chosen = [row for row in rows if row.reason == reason]
        if not chosen:
            continue
        console.print(Text(f"\n{title}", style="bold"))
        console.print(Text(f"{note}; rows of {', '.join(files)}", style="dim"))
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("row", "text", "intent", "suggested", "confidence"):
            grid.add_column(name, justify="right" if name in ("row", "confidence") else "left", overflow="fold")
        for index, row in enumerate(chosen):
            place = f"{row.file}:{row.row}" if len(files) > 1 else str(row.row)
            cells = (place, row.text, row.intent, row.suggested_intent, f"{row.confidence:.2f}")
            grid.add_row(*(Text(printable(cell)) for cell in cells), end_section=reason == NEIGHBOUR and index % 2 == 1)
        console.print(grid)
