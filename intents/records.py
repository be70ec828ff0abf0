"""The records of CSV, TSV, JSONL and Parquet files, each as the cells of its columns, and what is wrong with a file."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intents.cells import holds_rows, plain_values
from intents.problems import Problem, raise_problems

REMEDY = "set prepare.encoding, which holds for all files, or save the file anew"
TORN = (
    "a text that begins with a quotation mark takes in {} line(s) that look like rows; quote the whole text, and double"
    " the marks in it"
)


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read; `kind` and `split` are read where the file has them, None ignores them."""

    text: str = "text"
    intent: str = "intent"
    kind: str | None = "kind"
    split: str | None = "split"


@dataclass
class RawRows:
    """The rows of one file, column by column, in the file's order, and what is wrong with them.

    `numbers` are row numbers as a spreadsheet shows them: the header of a CSV file is row 1. JSONL and Parquet have no
    header, their first row is 1.
    """

    path: Path
    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    intents: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    header: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def complain(self, number: int, message: str) -> None:
        """Note a problem of row `number`."""
        self.problems.append(Problem(message, str(self.path), number))


def decode(path: Path, encoding: str) -> str:
    """Return the text in the file at `path`; raises ValueError where it is none in this encoding."""
    content = path.read_bytes()
    try:
        # Undecodable bytes become lone surrogates, so that each bad row can be named afterwards.
        text = content.decode(encoding, errors="surrogateescape").removeprefix("\ufeff")
        # Bytes with which a character of several begins in UTF-8, and which is one by itself in encodings of one byte.
        if not content.isascii() and len(bytes(range(0xC2, 0xF5)).decode(encoding, errors="ignore")) == 0xF5 - 0xC2:
            _check_characters(path, content, text, encoding)
        return text
    except LookupError:
        raise ValueError(f"prepare.encoding: unknown encoding {encoding!r}; try utf-8, cp1252 or utf-16") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {encoding} ({error.reason} at byte {error.start}); {REMEDY}") from None
    except UnicodeError as error:  # encodings of other things than files, such as idna
        raise ValueError(f"prepare.encoding: {encoding!r} cannot be used ({error}); try utf-8 or cp1252") from None


def _check_characters(path: Path, content: bytes, text: str, encoding: str) -> None:
    """Raise ValueError where an encoding of one byte a character, in which hardly a file is wrong, makes nonsense."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        raise ValueError(
            f"{path} is UTF-8 by its bytes, not {encoding}; prepare.encoding holds for all files: save them all alike"
        )
    if any("\x80" <= character <= "\x9f" for character in text):
        raise ValueError(
            f"{path} has control characters where it is read as {encoding}; set prepare.encoding to the code page of"
            " Windows that it was saved in: cp1252 for Western Europe, cp1251 for Cyrillic ..."
        )


def csv_records(content: str, delimiter: str, rows: RawRows) -> Iterator[Any]:
    """Yield the header, then the cells of each row, None where it is empty or `rows` has got a complaint."""
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 1
    try:
        for cells in reader:
            if header is None:
                header = cells
                yield header
                continue
            number += 1
            torn = next(filter(holds_rows, cells), None) if delimiter == "\t" else None
            if torn is not None:
                rows.complain(number, TORN.format(len(torn.splitlines()) - 1))
                yield None
                continue
            if len(cells) == len(header):
                yield cells
                continue
            if cells:  # an empty line counts as a row and is passed over
                rows.complain(
                    number,
                    f"{len(cells)} fields where the header has {len(header)}; quote texts that contain {delimiter!r}",
                )
            yield None
    except csv.Error as error:
        row = number if header is None else number + 1
        rows.complain(row, f"not valid CSV ({error}); is a quote left open? Rows below it were not checked")
    if header is None:
        raise_problems(rows.problems)
        raise ValueError(f"{rows.path} is empty: it needs a header and rows")


def jsonl_records(content: str, rows: RawRows) -> Iterator[Any]:
    """Yield the names of all columns, then the values of each line, None where `csv_records` does."""
    if content.lstrip().startswith("[") and content.rstrip().endswith("]"):
        raise ValueError(f"{rows.path} is one JSON list; JSONL has one object on each line")
    parsed: list[dict[str, Any] | None] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            parsed.append(None)
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits are refused, too
            value = None
            rows.complain(number, f"not valid JSON ({getattr(error, 'msg', 'nested too deep, or a number too long')})")
        else:
            if not isinstance(value, dict):
                rows.complain(number, f"must be a JSON object, found {type(value).__name__}")
                value = None
        parsed.append(value)
    names = list(dict.fromkeys(name for value in parsed if value for name in value))
    if not names:
        _explain_nothing(content, rows)
    yield names
    for value in parsed:
        yield None if value is None else [value.get(name) for name in names]


def _explain_nothing(content: str, rows: RawRows) -> None:
    """Raise ValueError for a JSONL file without any object."""
    if "\x00" in content:
        raise ValueError(f"{rows.path} is no text in this encoding; {REMEDY}")
    if len(rows.problems) > 1 and content.lstrip().startswith("{"):
        raise ValueError(f"{rows.path}: no line is a whole JSON object; JSONL has one object on each line")
    raise_problems(rows.problems)
    raise ValueError(f"{rows.path} is empty: it needs a JSON object on each line")


def parquet_records(path: Path, columns: Columns, labelled: bool) -> Iterator[Any]:
    """Yield the names of all columns, then the values of each row, those of the columns that are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        yield names
        read = (columns.text, columns.intent, columns.kind, columns.split) if labelled else (columns.text,)
        wanted = [name for name in names if name in read]
        for batch in file.iter_batches(columns=wanted):
            values = {name: plain_values(batch.column(name)) for name in wanted}
            yield from ([values[name][i] if name in values else None for name in names] for i in range(len(batch)))
    except (pa.ArrowException, OSError, OverflowError) as error:  # Python lacks times beyond the year 9999
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from None
