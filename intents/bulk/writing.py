"""Writes windows and their answers as CSV, TSV, JSONL or Parquet."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import infer_compression

from intents.bulk.places import STANDARD, atomic_output
from intents.bulk.rows import Window, to_cell, to_json
from intents.files import UnixLines

_ROW_GROUP_ROWS = 1 << 16
_ROW_GROUP_BYTES = 1 << 26


def raise_clash(names: Iterable[str], answer_names: Sequence[str]) -> None:
    """Raise ValueError if a column of the input has the name of an answer's column."""
    double = [name for name in names if name in answer_names]
    if double:
        raise ValueError(
            f"the input has a column {double[0]!r} already; name the answers' columns otherwise, for example with"
            " --prefix predicted_"
        )


class Writer(Protocol):
    """Takes the windows of one table in order."""

    def write(self, window: Window, answers: pa.RecordBatch) -> None:
        """Append the rows and, beside them, their answers."""


@contextmanager
def table_writer(place: str, kind: str, schema: pa.Schema | None, answers: pa.Schema) -> Iterator[Writer]:
    """Yield a writer of tables of `schema` followed by the columns of `answers`; they appear at `place` when whole.

    `schema` is None for JSONL, which takes any rows.
    """
    with atomic_output(place) as stored:
        if kind == "parquet":
            parquet = _Parquet(stored, cast(pa.Schema, schema), answers)
            try:
                yield parquet
            finally:
                parquet.close()
            return
        compression = None if place == STANDARD else infer_compression(place)
        opened = fsspec.compression.compr[compression](stored, mode="wb") if compression else stored
        text = io.TextIOWrapper(cast(Any, opened), "utf-8", newline="")
        names = [] if schema is None else schema.names
        delimiter = "\t" if kind == "tsv" else ","
        writer: Writer = _Jsonl(text, answers) if kind == "jsonl" else _Csv(text, names, answers, delimiter)
        try:
            yield writer
        finally:
            text.detach()  # flushes, and leaves the file to those who opened it
            if compression:
                opened.close()


class _Csv:
    def __init__(self, file: io.TextIOWrapper, names: Sequence[str], answers: pa.Schema, delimiter: str) -> None:
        self._file = file
        self._names = list(names)
        self._answer_names = answers.names
        self._writer = csv.writer(UnixLines(file), delimiter=delimiter)
        self._writer.writerow([to_cell(name) for name in [*self._names, *self._answer_names]])

    def write(self, window: Window, answers: pa.RecordBatch) -> None:
        columns = [_rounded(answers.column(name)) for name in self._answer_names]
        for row, *cells in zip(window.mappings(), *columns, strict=True):
            self._writer.writerow([*(to_cell(row.get(name)) for name in self._names), *map(to_cell, cells)])


class _Jsonl:
    def __init__(self, file: io.TextIOWrapper, answers: pa.Schema) -> None:
        self._file = file
        self._answer_names = answers.names

    def write(self, window: Window, answers: pa.RecordBatch) -> None:
        columns = [_rounded(answers.column(name)) for name in self._answer_names]
        for row, *cells in zip(window.mappings(), *columns, strict=True):
            if not row.keys().isdisjoint(self._answer_names):
                raise_clash(row, self._answer_names)
            self._file.write(to_json({**row, **dict(zip(self._answer_names, cells, strict=True))}) + "\n")


class _Parquet:
    """Gathers windows into row groups of a size that readers like."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, answers: pa.Schema) -> None:
        self._rows_schema = schema
        self._schema = pa.schema([*schema, *answers], metadata=schema.metadata)
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._held: list[pa.RecordBatch] = []

    def write(self, window: Window, answers: pa.RecordBatch) -> None:
        rows = window.batch(self._rows_schema)
        self._held.append(pa.record_batch([*rows.columns, *answers.columns], schema=self._schema))
        held_rows, held_bytes = sum(map(len, self._held)), sum(batch.nbytes for batch in self._held)
        if held_rows >= _ROW_GROUP_ROWS or held_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        if self._held:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._held))
        self._held = []


def _rounded(column: pa.Array) -> list[Any]:
    values = column.to_pylist()
    if not pa.types.is_floating(column.type):
        return list(values)
    return [None if value is None else round(value, 6) for value in values]
