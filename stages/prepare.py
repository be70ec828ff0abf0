"""Checks the raw rows, removes repeats and splits them without near-duplicates across splits.

Reads prepare.source (and prepare.validation_source, test_source, unlabelled_source), writes data/prepared/{train,
validation,test,unlabelled}.parquet, data/prepared/rejected.csv and metrics/prepare.json.

    python -m stages.prepare
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from intents import sources
from intents.checking import nearly_same
from intents.cli import run
from intents.files import write_csv, write_json
from intents.listing import listed
from intents.params import load_params
from intents.preparing import SCHEMA, Prepared, prepare
from intents.records import RawRows
from intents.rows import SPLITS
from intents.tables import with_facts, write_table

PREPARED_DIR = Path("data/prepared")
METRICS_PATH = Path("metrics/prepare.json")
REMEDY = "take the row out, or ignore the column (prepare.split_column=null)"
_MOST_NAMED = 10  # intents in one line
REJECTED_COLUMNS = ("file", "row", "text", "intent", "reason")


class PrepareParams(sources.SourceParams):
    """Section `prepare` of params.yaml."""

    exclude_intents: tuple[str, ...]
    out_of_scope_intent: str | None
    out_of_scope_use: Literal["class", "threshold", "both"]
    conflicts: Literal["error", "drop"]
    validation_share: float = Field(gt=0, lt=1)
    test_share: float = Field(gt=0, lt=1)
    near_duplicate_threshold: float = Field(gt=0.3, le=1)
    near_duplicates_of_official: Literal["drop", "keep"]
    seed: int

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must stay below 1, or nothing is left to train on")
        return self


def read_tables(params: PrepareParams) -> list[RawRows]:
    """Read the source files; rows of an official validation or test file carry that split, and may name no other."""
    tables = params.read()
    for split, table in tables.items():
        for number, named in zip(table.numbers, table.splits, strict=True):
            if named and split != "train" and named != split:
                table.complain(number, f"says {named}, but prepare.{split}_source makes it {split}; {REMEDY}")
            elif split == "train" and named != "train" and named in tables:
                table.complain(number, f"says {named}, for which prepare.{named}_source names a file; {REMEDY}")
        if split != "train":
            table.splits = [split] * len(table)
    return list(tables.values())


def write_outputs(prepared: Prepared) -> None:
    """Write the splits, the unlabelled and the rejected rows, and the metrics."""
    schema = with_facts(SCHEMA, intents=prepared.intents)
    for split in SPLITS:
        write_table(PREPARED_DIR / f"{split}.parquet", prepared.splits[split], schema)
    write_table(PREPARED_DIR / "unlabelled.parquet", prepared.unlabelled, schema)
    rejected = [dict(zip(REJECTED_COLUMNS, row, strict=True)) for row in prepared.rejected]
    write_csv(PREPARED_DIR / "rejected.csv", rejected, REJECTED_COLUMNS)
    write_json(METRICS_PATH, prepared.metrics)


def main() -> None:
    """Run the stage."""
    params = load_params("prepare", PrepareParams)
    tables = read_tables(params)
    prepared = prepare(
        tables,
        params.read_unlabelled(),
        exclude_intents=params.exclude_intents,
        out_of_scope_intent=params.out_of_scope_intent,
        train_on_out_of_scope=params.out_of_scope_use != "threshold",
        conflicts=params.conflicts,
        shares={"validation": params.validation_share, "test": params.test_share},
        threshold=params.near_duplicate_threshold,
        drop_near_official=params.near_duplicates_of_official == "drop",
        seed=params.seed,
    )
    write_outputs(prepared)
    rows = prepared.metrics["rows"]
    carved = [split for split in SPLITS[1:] if not any(split in table.splits for table in tables)]
    whence = f"; {' and '.join(carved)} carved from {params.source}" if carved else ""
    print(f"prepared {rows['train']} train, {rows['validation']} validation and {rows['test']} test rows{whence}")
    if unlabelled := prepared.metrics.get("unlabelled"):
        print(f"and {unlabelled['rows']} unlabelled ones; {unlabelled['left_out']} more repeat others or labelled rows")
    for split in SPLITS[1:]:
        if missing := [row["intent"] for row in prepared.metrics["rows_per_intent"] if not row[split]]:
            print(f"{split} has no row of {listed(missing, _MOST_NAMED)}")
    for alike in nearly_same(prepared.intents):
        print(f"{' and '.join(map(repr, alike))} count as different intents: if they are one, write them alike")
    if num_rejected := len(prepared.rejected):
        print(f"left out {num_rejected} row(s): {PREPARED_DIR / 'rejected.csv'} says which and why")


if __name__ == "__main__":
    run(main)
