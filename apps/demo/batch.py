"""Answers an uploaded CSV file: bounded, every row kept, a bad row explained beside it."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from apps.demo.answering import answer_many
from apps.demo.catalogue import Loaded
from apps.demo.limits import Limits
from intents.files import UnixLines

_ROWS_AT_ONCE = 256
_PREVIEW_ROWS = 8
_MOST_COLUMNS = 200
ADDED_COLUMNS = ["intent", "confidence", "action", "reason"]
Row = dict[str, str]


@dataclass(frozen=True)
class BatchResult:
    """What became of an uploaded file."""

    rows: int
    failed: int
    actions: dict[str, int]
    preview: list[Row]


def answer_file(
    source: Path,
    target: Path,
    loaded: Loaded,
    column: str,
    limits: Limits,
    default_threshold: float,
    progress: Callable[[float], None],
) -> BatchResult:
    """Write the rows of the CSV file `source`, and the answers to its `column`, to the CSV file `target`.

    The answers' columns are called predicted_intent and so on where `source` has one of their names.

    Raises:
        ValueError: `source` is no CSV file in UTF-8, has no such column, or too many rows.

    """
    header, rows = _read(source, limits.rows, column)
    if column not in header:  # but for blanks around it
        column = next(name for name in header if name.strip() == column.strip())
    texts = [row[column] for row in rows]
    answers: list[Row] = []
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        answers += _answer_texts(texts[start : start + _ROWS_AT_ONCE], loaded, limits, default_threshold)
        progress(min(1.0, (start + _ROWS_AT_ONCE) / len(texts)))
    prefix = ""
    while any(prefix + name in header for name in ADDED_COLUMNS):
        prefix += "predicted_"
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(UnixLines(file), header + [prefix + name for name in ADDED_COLUMNS])
        writer.writeheader()
        for row, found in zip(rows, answers, strict=True):
            writer.writerow(row | {prefix + name: found[name] for name in ADDED_COLUMNS})
    actions = Counter(found["action"] for found in answers)
    preview = [
        {"text": text[:200], **found}
        for text, found in zip(texts[:_PREVIEW_ROWS], answers[:_PREVIEW_ROWS], strict=True)
    ]
    return BatchResult(len(rows), actions[""], {name: actions[name] for name in ("act", "ask", "leave")}, preview)


def _read(source: Path, most_rows: int, column: str) -> tuple[list[str], list[Row]]:
    try:
        text = source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError("the file is not text in UTF-8; upload a CSV file with a header row")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(header, column)
        rows: list[Row] = []
        for cells in reader:
            if len(rows) == most_rows:
                raise ValueError(
                    f"the file has more than {most_rows:,} rows; answer large files with a batch job instead"
                )
            if cells:
                rows.append(_row(header, cells, reader.line_num))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not valid CSV ({error})") from None
    if not rows:
        raise ValueError("the file has no rows below its header")
    return header, rows


def _check_header(header: list[str], column: str) -> None:
    if not header:
        raise ValueError("the first row must name the columns")
    double = next((name for name in header if header.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"the first row must name each column once, and has {double!r} several times")
    if column.strip() not in (name.strip() for name in header):
        separated = len(header) == 1 and ";" in header[0]
        remedy = "; its fields are separated by semicolons: save it with commas" if separated else ""
        raise ValueError(f"the file has no column {column!r}; it has: {', '.join(header)[:500]}{remedy}")
    if len(header) > _MOST_COLUMNS:  # short rows are filled up
        raise ValueError(f"the file has {len(header):,} columns, more than {_MOST_COLUMNS}; leave some out")


def _row(header: list[str], cells: list[str], line: int) -> Row:
    if len(cells) > len(header):
        raise ValueError(
            f"line {line} has {len(cells)} cells, the header has {len(header)}; put texts with commas between quotes"
        )
    return dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))


def _answer_texts(texts: list[str], loaded: Loaded, limits: Limits, default_threshold: float) -> list[Row]:
    """Return the answer to each text, or the reason why there is none."""
    answers: list[Row] = []
    good: list[tuple[Row, str]] = []
    for text in texts:
        answers.append(dict.fromkeys(ADDED_COLUMNS, ""))
        try:
            good.append((answers[-1], limits.check_text(text)))
        except ValueError as error:
            answers[-1]["reason"] = str(error)
    found = answer_many(loaded, [text for _, text in good], default_threshold) if good else []
    for (row, _), (intent, confidence, action) in zip(good, found, strict=True):
        row |= {"intent": intent, "confidence": f"{confidence:.4f}", "action": action}
    return answers
