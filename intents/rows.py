"""Reads texts and their labels from CSV, TSV, JSONL or Parquet and says everything that is wrong with them at once."""

import csv
from pathlib import Path
from typing import Any

from intents.cells import without_surrogates
from intents.records import REMEDY, TORN, Columns, RawRows, csv_records, decode, jsonl_records, parquet_records
from intents.texts import is_empty

SPLITS = ("train", "validation", "test")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


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
        records, first = parquet_records(path, columns, labelled), 1
    elif path.suffix.lower() == ".jsonl":
        records, first = jsonl_records(decode(path, encoding), rows), 1
    else:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        records, first = csv_records(decode(path, encoding), delimiter, rows), 2
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
            rows.complain(number, TORN.format(num_rows))
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
            remedy = "" if cell is None or isinstance(cell, (dict, list, bytes)) else "; save the column as text"
            return rows.complain(number, f"{name} must be a string, found {found}{remedy}")
        if without_surrogates(cell) != cell:
            return rows.complain(number, f"{name} has bytes that are not {encoding}; {REMEDY}")
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
