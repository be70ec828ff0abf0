"""Tables on disk: Parquet files that are the same bytes for the same rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from intents.files import atomic_path

# Facts about predictions: intents that can be no answer, where there are any, and those that ask for nothing.
NEVER_ANSWERED, NO_ACTION = "never_answered", "no_action"


def with_facts(schema: pa.Schema, **facts: Any) -> pa.Schema:
    """Return `schema` carrying `facts` about the whole table, such as its intents in the order of their labels."""
    return schema.with_metadata({name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()})


def read_fact(path: Path, name: str, default: Any = None) -> Any:
    """Return what the table at `path` carries under `name`, or the `default`.

    Raises:
        ValueError: it carries no such fact, and there is no default.

    """
    metadata = pq.read_schema(path).metadata or {}
    if name.encode() not in metadata:
        if default is not None:
            return default
        raise ValueError(f"{path} carries no {name!r}: it was not written by this pipeline, run `dvc repro`")
    return json.loads(metadata[name.encode()])


def read_judged(source: Any, columns: Sequence[str]) -> pa.Table:
    """Return `columns` of the predictions at `source`, a path or a buffer, of the rows whose intent can be an answer.

    The others are out-of-scope texts that are only there for the thresholds: they count in no metric of answers.
    """
    import pyarrow.compute as pc

    never = pa.array(read_fact(source, NEVER_ANSWERED, default=[]), pa.string())
    table = pq.read_table(source, columns=list(columns))
    return table.filter(pc.invert(pc.is_in(table["intent"], never)))


def intents_of(path: Path) -> list[str]:
    """Return the intents' names that the table at `path` carries, in the order of their labels."""
    intents: list[str] = read_fact(path, "intents")
    return intents


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Any]:
    """Yield a Parquet writer; the file appears at `path` only when all of it was written."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        yield writer


def write_table(path: Path, columns: Mapping[str, Sequence[Any]], schema: pa.Schema) -> None:
    """Write `columns` as one Parquet file, whole or not at all."""
    with table_writer(path, schema) as writer:
        writer.write_table(pa.table(columns, schema=schema))
