"""Reads texts and their labels from CSV, TSV, JSONL or Parquet and says everything that is wrong with them at once."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intents.cells import holds_rows, plain_values, without_surrogates
from intents.problems import Problem, raise_problems
from intents.texts import is_empty

SPLITS = ("train", "validation", "test")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_TORN = (
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


def read_rows(path: Path, columns: Columns, encoding: str = "utf-8", labelled: bool = True) -> RawRows:
    """Read the table at `path`; its suffix says the format.

    Unless it is `labelled` its texts alone are read, and rows without a text are passed over.

    Bad rows are noted in `problems` and left out; the caller decides when to raise.

    Raises:
        ValueError: the file does not exist, has another suffix, lacks a column or cannot be read as its format.

    """
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist or is not a file; prepare.source, validation_source and test_source name tables of"
            " labelled texts, unlabelled_source one of unlabelled texts"
        )
    if path.suffix.lower() not in SUFFIXES:
        packed = "; unpack it first" if path.suffix.lower() in (".gz", ".zip", ".bz2", ".xz", ".zst") else ""
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; valid: {', '.join(SUFFIXES)}{packed}")
    rows = RawRows(path)
    if path.suffix.lower() == ".parquet":
        records, first = _parquet_records(path, columns, labelled), 1
    elif path.suffix.lower() == ".jsonl":
        records, first = _jsonl_records(_decode(path, encoding), rows), 1
    else:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        records, first = _csv_records(_decode(path, encoding), delimiter, rows), 2
    rows.header = next(records)
    positions = _find_columns(path, columns, rows.header, labelled)
    several_lines: list[tuple[int, str]] = []
    for number, cells in enumerate(records, start=first):
        if cells is not None:
            _add_row(rows, number, ["" if p is None else cells[p] for p in positions], encoding, labelled)
            if labelled and path.suffix.lower() == ".csv":
                several_lines += [(number, cell) for cell in cells if "\n" in cell]
    intents = set(rows.intents)
    for number, cell in several_lines:
        num_rows = _num_rows_in(cell, len(rows.header), rows.header.index(columns.intent), intents)
        if num_rows:
            rows.complain(number, _TORN.format(num_rows))
    return rows


def _num_rows_in(cell: str, num_columns: int, position: int, intents: set[str]) -> int:
    """Return how many lines of a CSV's cell look like whole rows, with one of the `intents` at `position`.

    0 where the first does not, with which a text that takes in rows begins. Prose has a blank after its commas.
    """
    lines = (next(csv.reader([line]), []) for line in cell.splitlines()[:-1])
    are_rows = [len(cells) == num_columns and cells[position] in intents for cells in lines]
    return sum(are_rows) if are_rows[:1] == [True] else 0


def _find_columns(path: Path, columns: Columns, header: list[str], labelled: bool) -> list[int | None]:
    for setting, name in (("text_column", columns.text), ("intent_column", columns.intent))[: 2 if labelled else 1]:
        if name not in header:
            found = ", ".join(header) or "none (its first line is empty; the header must be the first line)"
            hint = "" if found.replace("\t", "").isprintable() else "; set prepare.encoding"
            if not hint and len(header) == 1 and ";" in found and path.suffix.lower() == ".csv":
                raise ValueError(f"{path}: its fields are separated by semicolons, {found}; save it with commas")
            if not hint and len(header) == 1 and path.suffix.lower() in (".csv", ".tsv"):
                hint = " (fields are separated by commas, in .tsv files by tabs)"
            raise ValueError(f"{path} has no column {name!r} (prepare.{setting}); its columns: {found}{hint}")
    read = (columns.text, columns.intent, columns.kind, columns.split) if labelled else (columns.text,)
    double = next((name for name in read if name and header.count(name) > 1), None)
    if double:
        raise ValueError(f"{path} has two columns called {double!r}; rename one")
    if not labelled:
        return [header.index(columns.text), None, None, None]
    if columns.split and columns.split not in header:  # an official split that is passed over spoils every figure
        alike = [name for name in header if name.strip().casefold() == columns.split.strip().casefold()]
        if alike:
            raise ValueError(
                f"{path} has no column {columns.split!r} (prepare.split_column), but {alike[0]!r}; set"
                f" prepare.split_column={alike[0]}, or null to ignore it"
            )
    optional = [header.index(name) if name in header else None for name in (columns.kind, columns.split)]
    return [header.index(columns.text), header.index(columns.intent), *optional]


def _add_row(rows: RawRows, number: int, cells: list[Any], encoding: str, labelled: bool) -> None:
    if not labelled and (cells[0] is None or is_empty(str(cells[0]))):
        return None
    cells[2:] = ["" if cell is None else cell for cell in cells[2:]]
    cells[1:] = [str(cell) if type(cell) is int else cell for cell in cells[1:]]  # intents may be numbers
    for name, cell in zip(("text", "intent", "kind", "split"), cells, strict=True):
        if not isinstance(cell, str):
            found = "nothing" if cell is None else type(cell).__name__
            remedy = "; save the column as text or whole numbers" if name != "text" and type(cell) is float else ""
            return rows.complain(number, f"{name} must be a string, found {found}{remedy}")
        if without_surrogates(cell) != cell:
            return rows.complain(number, f"{name} has bytes that are not {encoding}; set prepare.encoding")
    text, intent, kind, split = (cell.strip() for cell in cells)
    if labelled and (is_empty(text) or not intent):
        return rows.complain(number, f"empty {'text' if is_empty(text) else 'intent'}")
    if split and split not in SPLITS:
        valid = ", ".join(SPLITS)
        return rows.complain(
            number, f"unknown split {split!r}; valid: {valid}; prepare.split_column=null ignores the column"
        )
    rows.numbers.append(number)
    rows.texts.append(text)
    rows.intents.append(intent)
    rows.kinds.append(kind)
    rows.splits.append(split)


def _decode(path: Path, encoding: str) -> str:
    try:
        # Undecodable bytes become lone surrogates, so that each bad row can be named afterwards.
        return path.read_bytes().decode(encoding, errors="surrogateescape").removeprefix("\ufeff")
    except LookupError:
        raise ValueError(f"prepare.encoding: unknown encoding {encoding!r}; try utf-8, latin-1 or utf-16") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not {encoding} ({error.reason} at byte {error.start}); set prepare.encoding"
        ) from None
    except ValueError as error:  # encodings of other things than files, such as idna
        raise ValueError(f"prepare.encoding: {encoding!r} cannot be used ({error}); try utf-8 or latin-1") from None


def _csv_records(content: str, delimiter: str, rows: RawRows) -> Iterator[Any]:
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
                rows.complain(number, _TORN.format(len(torn.splitlines()) - 1))
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


def _jsonl_records(content: str, rows: RawRows) -> Iterator[Any]:
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
        raise_problems(rows.problems)
        raise ValueError(f"{rows.path} is empty: it needs a JSON object on each line")
    yield names
    for value in parsed:
        yield None if value is None else [value.get(name) for name in names]


def _parquet_records(path: Path, columns: Columns, labelled: bool) -> Iterator[Any]:
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
