"""The columns that JSON objects, which may differ from row to row, have as one table."""

from typing import Any

import pyarrow as pa

from intents.bulk.reading import Source, open_table
from intents.cells import without_surrogates


def schema_of_objects(source: Source) -> pa.Schema:
    """Return columns that fit every object of a JSONL file: needed to write it as a table, and one pass over it."""
    kinds: dict[str, pa.DataType] = {}
    with open_table(source) as table:
        for window in table.windows:
            for row in window.mappings():
                for name, value in row.items():
                    if without_surrogates(name) != name:
                        raise ValueError(f"{source.place}: the key {name!r} is not valid Unicode; rename it")
                    kinds[name] = _join(kinds.get(name), _kind_of(value))
    return pa.schema([(name, pa.string() if kind == pa.null() else kind) for name, kind in kinds.items()])


def _kind_of(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 53:
        return pa.string()  # neither int64 nor double is sure to hold it
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}.get(type(value), pa.string())


def _join(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    if one is None or one == other or one == pa.null():
        return other
    if other == pa.null():
        return one
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()
