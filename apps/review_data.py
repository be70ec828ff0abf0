"""The labelled data that apps.review reads, and the settings that say where it is."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import ConfigDict

from intents.params import Params
from intents.records import RawRows
from intents.review_files import SourceRow, locate_rows
from intents.sources import SourceParams

PREPARED_DIR = Path("data/prepared")


class ReviewedParams(SourceParams):
    """Those settings of section `prepare` that matter here."""

    model_config = ConfigDict(extra="ignore")  # the section has more, which are the stage's business

    near_duplicate_threshold: float


class LengthParams(Params):
    """Section `tokenize`."""

    model_config = ConfigDict(extra="ignore")

    max_length: int


def read_prepared(tables: dict[str, RawRows], splits: Sequence[str]) -> list[SourceRow]:
    """Return the SourceRows of `splits` in data/prepared."""
    rows: list[SourceRow] = []
    for split in splits:
        path = PREPARED_DIR / f"{split}.parquet"
        if not path.is_file():
            raise ValueError(f"{path} does not exist: run `dvc repro prepare`, or `dvc pull prepare`")
        table = pq.read_table(path, columns=["text", "intent", "row"]).to_pydict()
        fitting = [tables[name] for name in dict.fromkeys((split, "train")) if name in tables]
        rows += locate_rows(table["text"], table["intent"], table["row"], fitting)
    return rows
