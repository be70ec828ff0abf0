"""A window: consecutive rows of a table, the texts in them, and what is wrong with those that cannot be answered."""

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from intents.cells import SURROGATES, decoded, plain_values, without_surrogates
from intents.texts import is_empty

WINDOW_ROWS = 8192  # rows that are sorted by length together
# Nothing beyond so many characters reaches the tokenizer: a stray book in a text column must not stop the run, and a
# text of 64 tokens ends long before.
MOST_CHARACTERS = 20_000
_UNDECODED = re.compile("[\udc80-\udcff]")  # the surrogates that stand for bytes


@dataclass(frozen=True)
class Window:
    """Consecutive rows.

    `rows` are a record batch (Parquet) or one mapping per row (the other formats); `texts` has None where the row
    cannot be answered, and `reasons` says why ("" elsewhere).
    """

    rows: pa.RecordBatch | list[dict[str, Any]]
    texts: list[str | None]
    reasons: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def good_texts(self) -> list[str]:
        """The texts that can be answered, in the rows' order."""
        return [text for text in self.texts if text is not None]

    def mappings(self) -> list[dict[str, Any]]:
        """Return one mapping per row."""
        if isinstance(self.rows, list):
            return self.rows
        columns = {name: _any_values(name, self.rows.column(name)) for name in self.rows.schema.names}
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        """Return the rows as a record batch of `schema`."""
        if isinstance(self.rows, pa.RecordBatch):
            return self.rows
        return pa.record_batch(
            [
                pa.array([_fit(row.get(field.name), field.type) for row in self.rows], type=field.type)
                for field in schema
            ],
            schema=schema,
        )


def check_text(value: Any, encoding: str) -> tuple[str | None, str]:
    """Return the text to answer and "", or None and the reason why `value` cannot be answered."""
    if value is None:
        return None, "no text"
    if isinstance(value, bytes):
        value = value.decode(encoding, errors="surrogateescape")
    if not isinstance(value, str):
        return None, f"not text: {type(value).__name__} {str(value)[:40]}"
    if not value.isascii() and SURROGATES.search(value):
        return None, f"undecodable: not valid {encoding}"
    text = value.strip()[:MOST_CHARACTERS].rstrip()
    return (None, "empty text") if is_empty(text) else (text, "")


def make_window(
    rows: pa.RecordBatch | list[dict[str, Any]], values: list[Any], reasons: list[str], encoding: str
) -> Window:
    """Return a window of `rows`, whose text cells are `values`; rows that have a reason already keep it."""
    checked = [
        (None, reason) if reason else check_text(value, encoding) for value, reason in zip(values, reasons, strict=True)
    ]
    return Window(rows, [text for text, _ in checked], [reason for _, reason in checked])


def has_undecoded_bytes(*values: Any) -> bool:
    """Tell whether some of `values`, cells or JSON values, hold bytes that could not be decoded."""
    for value in values:
        if isinstance(value, list | dict):
            value = json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and not value.isascii() and _UNDECODED.search(value):
            return True
    return False


def _any_values(name: str, column: pa.Array) -> list[Any]:
    """Return the cells of a Parquet column; those of a column with times or zones that Python lacks as strings."""
    try:
        try:
            return plain_values(column)
        except (OverflowError, KeyError):
            return list(column.cast(pa.string()).to_pylist())
    except pa.ArrowNotImplementedError as error:
        raise ValueError(
            f"the cells of column {name!r} ({column.type}) cannot be written in this format ({error}); write Parquet,"
            " or leave the column out of the input"
        ) from None


def to_json(value: Any) -> str:
    """Return `value` as one line of JSON; what JSON lacks (times, decimals, bytes, nan) becomes a string."""
    try:
        line = json.dumps(value, ensure_ascii=False, default=_stringify, allow_nan=False)
    except ValueError:
        line = json.dumps(_finite(value), ensure_ascii=False, default=_stringify)
    return without_surrogates(line)


def _finite(value: Any) -> Any:
    """Return `value` with strings in place of the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):  # pairs are the entries of a map
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def to_cell(value: Any) -> str:
    """Return `value` as a CSV cell: nothing is empty, lists and mappings are JSON."""
    if isinstance(value, str):
        return without_surrogates(value)
    if value is None:
        return ""
    return to_json(value) if isinstance(value, dict | list | bool) else _stringify(value)


def _stringify(value: Any) -> str:
    if isinstance(value, bytes):
        text = decoded(value)
        return text if isinstance(text, str) else base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _fit(value: Any, kind: pa.DataType) -> Any:
    return to_cell(value) if pa.types.is_string(kind) and value is not None else value
