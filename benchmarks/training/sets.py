"""The data sets: the pipeline's own, and BANKING77 where it can be found.

BANKING77 comes from the folder that INTENTS_PUBLIC_DATA names, by default ../shared/data beside the repository: there
banking77/{train,test}.csv, columns text and label. Validation is carved from train; of test nothing is used but the
texts, to keep the same rows as anybody who prepares the set with its test file.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from intents.params import read_params
from intents.preparing import SCHEMA, prepare
from intents.records import Columns, RawRows
from intents.rows import read_rows
from intents.tables import with_facts, write_table
from intents.tokenizing import load_tokenizer, tokenize_table

ENCODER_DIR = Path("models/encoder")
DRIVER_DIR = Path("data")
DATA_VARIABLE = "INTENTS_PUBLIC_DATA"
CACHE_DIR = Path(".cache/benchmarks/training")
NAMES = ("driver", "banking77")
SPLITS = ("train", "validation")


def find_set(name: str) -> Path | str:
    """Return the folder with a set's prepared and tokenized splits; text that says why it is skipped, if it is.

    Raises:
        ValueError: the pipeline's own data is not there.

    """
    if name == "driver":
        _check_there(ENCODER_DIR, *(DRIVER_DIR / "prepared" / f"{split}.parquet" for split in SPLITS))
        return _driver(CACHE_DIR / "driver")
    source = Path(os.environ.get(DATA_VARIABLE, "../shared/data")) / "banking77"
    missing = [str(source / f"{split}.csv") for split in ("train", "test") if not (source / f"{split}.csv").is_file()]
    if missing:
        where = f"{DATA_VARIABLE} names the folder that holds banking77/"
        return f"banking77 is skipped: {', '.join(missing)} not found; {where}"
    _check_there(ENCODER_DIR)
    return _banking77(source, CACHE_DIR / "banking77")


def _check_there(*paths: Path) -> None:
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} is missing: run `dvc repro tokenize`, or `dvc pull`")


def _driver(folder: Path) -> Path:
    """Write the pipeline's own data to `folder` without mistyped copies: all systems train on the same texts."""
    for split in SPLITS:
        rows_path = folder / "prepared" / f"{split}.parquet"
        rows_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DRIVER_DIR / "prepared" / rows_path.name, rows_path)
        _tokenize(rows_path, folder)
    return folder


def _tokenize(rows_path: Path, folder: Path) -> None:
    tokenizer = load_tokenizer(ENCODER_DIR, read_params()["tokenize"]["max_length"])
    tokenize_table(rows_path, folder / "tokenized" / rows_path.name, tokenizer)


def _banking77(source: Path, folder: Path) -> Path:
    tables = []
    for split in ("train", "test"):
        rows = read_rows(source / f"{split}.csv", Columns(intent="label", kind=None, split=None))
        if split == "test":
            rows.splits = [split] * len(rows)
        tables.append(rows)
    prepared = prepare(
        tables,
        RawRows(source),
        exclude_intents=(),
        out_of_scope_intent=None,
        train_on_out_of_scope=True,
        conflicts="drop",
        shares={"validation": 0.1, "test": 0.2},  # there is a test file: the second does nothing
        threshold=0.7,
        drop_near_official=False,
        seed=0,
    )
    for split in SPLITS:
        rows_path = folder / "prepared" / f"{split}.parquet"
        write_table(rows_path, prepared.splits[split], with_facts(SCHEMA, intents=prepared.intents))
        _tokenize(rows_path, folder)
    return folder


def sampled(data_dir: Path, num_rows: Mapping[str, int], folder: Path) -> Path:
    """Write `num_rows` rows of each split of the set in `data_dir`, the same of either kind, to `folder`."""
    for kind in ("prepared", "tokenized"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            table = pq.read_table(data_dir / kind / f"{split}.parquet")
            chosen = np.random.default_rng(0).permutation(len(table))[: num_rows[split]]
            pq.write_table(table.take(chosen), folder / kind / f"{split}.parquet")
    return folder
