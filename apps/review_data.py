"""The labelled data that apps.review reads, and the settings that say where it is."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import ConfigDict

from intents.params import Params
from intents.review_files import SourceRow, locate_rows
from intents.rows import Columns, RawRows, read_rows

PREPARED_DIR = Path("data/prepared")
NO_SOURCE = Path("data/none")


class _SomeSettings(Params):
    model_config = ConfigDict(extra="ignore")  # the section has more, which are the stage's business


class SourceParams(_SomeSettings):
    """Those settings of section `prepare` that say where the data is and how it is read."""

    source: Path
    validation_source: Path
    test_source: Path
    text_column: str
    intent_column: str
    kind_column: str | None
    split_column: str | None
    encoding: str
    near_duplicate_threshold: float

    @property
    def columns(self) -> Columns:
        """The names of the columns."""
        return Columns(self.text_column, self.intent_column, self.kind_column, self.split_column)

    def read(self) -> dict[str, RawRows]:
        """Return the source files: that of `train` holds all the splits that no other file does."""
        paths = {"train": self.source, "validation": self.validation_source, "test": self.test_source}
        return {
            split: read_rows(path, self.columns, self.encoding) for split, path in paths.items() if path != NO_SOURCE
        }


class LengthParams(_SomeSettings):
    """Section `tokenize`."""

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
