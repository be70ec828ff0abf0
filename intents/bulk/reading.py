"""Reads tables in windows, in constant memory: CSV, TSV, JSONL (plain or compressed) and Parquet."""

import codecs
import io
import itertools
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import infer_compression

from intents.bulk.lines import csv_records, json_records
from intents.bulk.places import STANDARD, open_input, spooled
from intents.bulk.rows import WINDOW_ROWS, Window, has_undecoded_bytes, make_window
from intents.cells import plain_values, without_surrogates

_WINDOW_CHARACTERS = 1 << 25  # a window ends early at so many, so that long texts do not fill the memory
_SPECIMEN_RECORDS = 1000
_ROWS_READ_AT_ONCE = 64  # of Parquet, which does not say how large the next ones are
Record = tuple[Any, str]  # a row's cells and what is wrong with it


@dataclass(frozen=True)
class Source:
    """A table to read: a path, URL or -, its format, text column and (CSV, TSV, JSONL) encoding."""

    place: str
    format: str
    text_column: str = "text"
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Table:
    """An open table.

    `schema` is None for JSONL, whose objects may differ from row to row. `bytes_read` counts the stored bytes that the
    windows so far took, for the progress bar.
    """

    schema: pa.Schema | None
    windows: Iterator[Window]
    bytes_read: Callable[[], int]


@contextmanager
def open_table(source: Source) -> Iterator[Table]:
    """Open the table for one pass over its windows.

    Raises:
        ValueError: the file cannot be read as its format, or has no text column.

    """
    with open_input(source.place) as stored:
        if source.format == "parquet":
            with spooled(stored) as file:
                yield _open_parquet(source, file)
            return
        codec = _codec_of(source.encoding)
        text = io.TextIOWrapper(cast(Any, _decompressed(source.place, stored)), codec, "surrogateescape", newline="")
        try:
            yield _open_lines(source, text, _position_of(stored))
        finally:
            text.detach()


def _decompressed(place: str, stored: BinaryIO) -> BinaryIO:
    compression = None if place == STANDARD else infer_compression(place)
    if not compression:
        return stored
    try:
        if compression == "zip":
            _check_members(place, stored)
        return cast(BinaryIO, fsspec.compression.compr[compression](stored, mode="rb"))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{place} is damaged: {error}") from None
    except RuntimeError as error:  # encrypted, or packed by a method that Python lacks
        raise ValueError(f"{place} cannot be unpacked: {error}; pack it anew, or unpack it first") from None


def _check_members(place: str, stored: BinaryIO) -> None:
    with zipfile.ZipFile(stored) as archive:
        names = archive.namelist()
    stored.seek(0)
    if len(names) != 1:  # fsspec reads the first alone
        raise ValueError(f"{place} holds {len(names)} files ({', '.join(names[:3])}); pack one table per archive")


def _readable(source: Source, records: Iterator[Record]) -> Iterator[Record]:
    """Yield `records`; what stops their reading becomes a ValueError that names the file."""
    # That of xz shares no base with the others; the module is there if such a file was opened.
    lzma = sys.modules.get("lzma")
    damage = (EOFError, zlib.error, zipfile.BadZipFile, OSError, *([lzma.LZMAError] if lzma else []))
    try:
        yield from records
    except UnicodeError as error:
        raise ValueError(f"{source.place} is not {source.encoding} ({error}); set --encoding") from None
    except damage as error:
        raise ValueError(f"{source.place} cannot be read to its end: {error}") from None


def _codec_of(encoding: str) -> str:
    """Return the codec of `encoding`; UTF-8 files may begin with a byte order mark."""
    try:
        name = codecs.lookup(encoding).name
        io.TextIOWrapper(io.BytesIO(), name)  # base64 and others are known, but encode no text
    except LookupError:
        raise ValueError(f"--encoding: unknown encoding {encoding!r}; try utf-8, latin-1 or utf-16") from None
    return "utf-8-sig" if name == "utf-8" else name


def _position_of(stored: BinaryIO) -> Callable[[], int]:
    return stored.tell if stored.seekable() else lambda: 0


def _open_lines(source: Source, text: io.TextIOWrapper, bytes_read: Callable[[], int]) -> Table:
    if source.format == "jsonl":
        records = _readable(source, json_records(text))
        first = list(itertools.islice(records, _SPECIMEN_RECORDS))
        if first and all(problem for _, problem in first):
            raise ValueError(
                f"{source.place}: its first {len(first)} line(s) hold no JSON object ({first[0][1]}); JSONL has one"
                " object on each line"
            )
        if first and not any(source.text_column in row for row, _ in first):
            _refuse(source, list(dict.fromkeys(name for row, _ in first for name in row)))
        return Table(None, _windows(source, itertools.chain(first, records)), bytes_read)
    delimiter = "\t" if source.format == "tsv" else ","
    cells = _readable(source, csv_records(text, delimiter))
    header, problem = next(cells, ([], ""))
    if problem or not header:
        raise ValueError(f"{source.place}: the first line must name the columns ({problem or 'the file is empty'})")
    _check_columns(source, header)
    schema = pa.schema([(name, pa.string()) for name in header])
    return Table(schema, _windows(source, (_named(header, delimiter, *record) for record in cells)), bytes_read)


def _check_columns(source: Source, names: list[str]) -> None:
    if source.text_column not in names or any(without_surrogates(name) != name for name in names):
        _refuse(source, names)
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{source.place} has two columns called {double!r}; rename one")


def _refuse(source: Source, names: list[str]) -> None:
    found = ", ".join(names) or "none"
    if without_surrogates(found) != found:
        raise ValueError(f"{source.place} is not {source.encoding}; set --encoding")
    where = f"{source.place} has no column {source.text_column!r}"
    if len(names) == 1 and ";" in found and source.format == "csv":
        raise ValueError(f"{where}: its fields are separated by semicolons, {found}; save it with commas")
    alone = len(names) == 1 and source.format != "jsonl"
    hint = " (fields are separated by commas, in .tsv files by tabs)" if alone else ""
    raise ValueError(f"{where} (--text-column); its columns: {found}{hint}")


def _named(header: list[str], delimiter: str, cells: list[str], problem: str) -> tuple[dict[str, Any], str]:
    if len(cells) != len(header) and not problem:
        problem = f"{len(cells)} fields where the header has {len(header)}"
    if len(cells) > len(header):  # nothing of the row is lost
        last = len(header) - 1
        cells = [*cells[:last], delimiter.join(cells[last:])]
    return dict(zip(header, cells, strict=False)), problem


def _windows(source: Source, records: Iterable[tuple[dict[str, Any], str]]) -> Iterator[Window]:
    rows: list[dict[str, Any]] = []
    reasons: list[str] = []
    characters = 0
    for row, reason in records:
        rows.append(row)
        reasons.append(reason or _undecodable(source, row))
        characters += sum(map(_size, row.values()))
        if len(rows) == WINDOW_ROWS or characters > _WINDOW_CHARACTERS:
            yield _window(source, rows, reasons)
            rows, reasons, characters = [], [], 0
    if rows:
        yield _window(source, rows, reasons)


def _size(cell: Any) -> int:
    """Return about how many characters `cell` is worth in memory."""
    size, waiting = 0, [cell]
    while waiting:  # JSON may be nested as deep as Python's calls may go
        part = waiting.pop()
        size += len(part) if isinstance(part, str) else 32
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return size


def _undecodable(source: Source, row: dict[str, Any]) -> str:
    """Return why `row` cannot stand beside an answer: a column other than the text would be altered."""
    for name, cell in row.items():
        if name != source.text_column and has_undecoded_bytes(name, cell):
            return f"undecodable: column {without_surrogates(name)!r} is not valid {source.encoding}"
    return ""


def _window(source: Source, rows: list[dict[str, Any]], reasons: list[str]) -> Window:
    return make_window(rows, [row.get(source.text_column) for row in rows], reasons, source.encoding)


def _open_parquet(source: Source, stored: BinaryIO) -> Table:
    try:
        file = pq.ParquetFile(stored, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{source.place} is not a readable Parquet file: {error}") from None
    schema = file.schema_arrow
    _check_columns(source, schema.names)
    stored.seek(0, io.SEEK_END)
    size, done = stored.tell(), 0

    def windows() -> Iterator[Window]:
        nonlocal done
        try:
            for batch in _windows_of(file):
                done += len(batch)
                values = plain_values(batch.column(source.text_column))
                yield make_window(batch, values, [""] * len(values), "utf-8")
        except pa.ArrowNotImplementedError as error:
            raise ValueError(f"{source.place} cannot be read: {error}") from None
        except (OverflowError, KeyError) as error:  # times and time zones that Python lacks
            kind = schema.field(source.text_column).type
            raise ValueError(
                f"{source.place}: column {source.text_column!r} ({kind}) holds no texts: {error}"
            ) from None
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{source.place} is damaged after row {done}: {error}") from None

    return Table(schema, windows(), lambda: size * done // max(file.metadata.num_rows, 1))


def _windows_of(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, so many at once as make a window: fewer where they are large."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in file.iter_batches(batch_size=_ROWS_READ_AT_ONCE):
        waiting.append(batch)
        size += sum(map(_bytes_of, batch.columns))
        if len(waiting) == WINDOW_ROWS // _ROWS_READ_AT_ONCE or size > _WINDOW_CHARACTERS:
            yield pa.concat_batches(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def _bytes_of(column: pa.Array) -> int:
    """Return how many bytes the cells take, each written out."""
    return int((column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).nbytes)
