"""Reviews as CSV files, and the rows that they are made of."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from intents.bulk.places import FORMATS, format_of
from intents.bulk.reading import Source, open_table
from intents.files import write_csv
from intents.records import RawRows

_FORMULA = ("=", "+", "-", "@", "'")  # as a cell begins; the last is the mark of those that are none
MISLABELLED, NEIGHBOUR, UNLABELLED = "mislabelled", "neighbour", "unlabelled"


@dataclass(frozen=True)
class SourceRow:
    """A row of a file; `row` is its number there, as `RawRows` counts. Without a label, `intent` is empty."""

    file: str
    row: int
    text: str
    intent: str


@dataclass(frozen=True)
class ReviewRow:
    """One row to look at. The fields are the CSV's columns; a person fills in `corrected_intent`.

    `confidence` is the probability of `suggested_intent`, and `neighbour` the most similar row that speaks for it.
    """

    file: str
    row: int
    text: str
    intent: str
    corrected_intent: str
    suggested_intent: str = ""
    confidence: float = 0.0
    reason: str = ""
    neighbour: str = ""


def locate_rows(
    texts: Sequence[str], intents: Sequence[str], numbers: Sequence[int], tables: Sequence[RawRows]
) -> list[SourceRow]:
    """Return where each prepared row stands in the source files; the first of `tables` that fits is taken.

    Raises:
        ValueError: a row stands in none of them.

    """
    found = [
        {number: (text, intent) for number, text, intent in zip(t.numbers, t.texts, t.intents, strict=True)}
        for t in tables
    ]
    located = []
    for text, intent, number in zip(texts, intents, numbers, strict=True):
        fitting = [t.path for t, rows in zip(tables, found, strict=True) if rows.get(number) == (text, intent)]
        if not fitting:
            names = " or ".join(table.path.as_posix() for table in tables)
            raise ValueError(
                f"data/prepared is older than the data: {names} has no row {number} with the text {text!r} and the"
                f" intent {intent!r}; run `dvc repro prepare`"
            )
        located.append(SourceRow(fitting[0].as_posix(), number, text, intent))
    return located


def read_unlabelled(path: Path, text_column: str, encoding: str) -> tuple[list[SourceRow], Counter[str]]:
    """Return the rows of the table at `path` that have a text, and how many have none.

    Raises:
        ValueError: it cannot be read, or has no such column.

    """
    kind = format_of(str(path))
    if not kind:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; valid: {', '.join('.' + name for name in FORMATS)}")
    rows: list[SourceRow] = []
    left_out: Counter[str] = Counter()
    number = 2 if kind in ("csv", "tsv") else 1
    with open_table(Source(str(path), kind, text_column, encoding)) as table:
        for window in table.windows:
            for text, reason in zip(window.texts, window.reasons, strict=True):
                if text is not None:
                    rows.append(SourceRow(path.as_posix(), number, text, ""))
                else:
                    left_out[reason] += 1
                number += 1
    return rows, left_out


def write_review(path: Path, rows: Sequence[ReviewRow]) -> None:
    """Write `rows` as a CSV file, with the mark by which spreadsheets tell UTF-8.

    A cell that a spreadsheet would take for a formula, which could do what the author of a text likes, starts with '.
    """
    cells = [{name: _as_text(value) for name, value in asdict(row).items()} for row in rows]
    write_csv(path, cells, [field.name for field in fields(ReviewRow)], "utf-8-sig")


def _as_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _as_meant(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def read_review(path: Path) -> list[ReviewRow]:
    """Read a CSV file that `write_review` wrote and a person or spreadsheet changed; what was suggested is left out.

    Row n of the file is element n - 2, also where it is empty.

    Raises:
        ValueError: it is no such file.

    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; python -m apps.review writes such a file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8; save it as 'CSV UTF-8'") from None
    header = content.partition("\n")[0]
    csv.field_size_limit(1 << 30)
    delimiter = max(",;\t", key=header.count)  # spreadsheets of some countries write semicolons
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        names, *records = [*reader] or [[]]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error}); is a quote left open?") from None
    needed = ("file", "row", "text", "intent", "corrected_intent", "reason")
    lacking = [name for name in needed if name not in names]
    if lacking:
        raise ValueError(f"{path} was not written by apps.review: it has no column {', '.join(lacking)}")
    rows = []
    for number, cells in enumerate(records, start=2):
        found = dict.fromkeys(needed, "") | {
            name: _as_meant(cell.strip()) for name, cell in zip(names, cells, strict=False)
        }
        # Spreadsheets leave emptied rows; they are kept, without a correction, so that those below keep their numbers.
        if any(found[name] for name in needed) and not found["row"].isdecimal():
            raise ValueError(f"{path}, row {number}: row must be a number, found {found['row']!r}")
        rows.append(
            ReviewRow(
                file=found["file"],
                row=int(found["row"] or 0),
                text=found["text"],
                intent=found["intent"],
                corrected_intent=found["corrected_intent"],
                reason=found["reason"],
            )
        )
    return rows
