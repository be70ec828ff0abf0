"""Which files hold the data, and how they are read."""

import os
from pathlib import Path

from intents.params import Params
from intents.records import Columns, RawRows
from intents.rows import read_rows

NO_SOURCE = Path("data/none")


class SourceParams(Params):
    """Those settings of section `prepare` that say where the data is and how it is read."""

    source: Path
    validation_source: Path
    test_source: Path
    unlabelled_source: Path
    text_column: str
    intent_column: str
    kind_column: str | None
    split_column: str | None
    encoding: str

    @property
    def columns(self) -> Columns:
        """The names of the columns."""
        return Columns(self.text_column, self.intent_column, self.kind_column, self.split_column)

    def read(self) -> dict[str, RawRows]:
        """Return the source files: that of `train` holds all the splits that no other file does.

        Raises:
            ValueError: two settings name one file or column, a file cannot be read, or none has a column that was asked
                for.

        """
        named: dict[str, str] = {}
        for setting in ("source", "validation_source", "test_source", "unlabelled_source"):
            path = getattr(self, setting)
            other = named.setdefault(os.path.realpath(path), setting)
            if other != setting and path != NO_SOURCE:
                raise ValueError(
                    f"prepare.{other} and prepare.{setting} name the same file, {path}: what is measured on rows that"
                    " were learnt or chose thresholds means nothing; name another, or data/none"
                )
        if self.text_column == self.intent_column:
            raise ValueError(f"prepare.text_column and prepare.intent_column are the same column, {self.text_column!r}")
        if self.source == NO_SOURCE:
            raise ValueError(f"prepare.source must name a table of labelled texts, got {NO_SOURCE}")
        paths = {"train": self.source, "validation": self.validation_source, "test": self.test_source}
        tables = {
            split: read_rows(path, self.columns, self.encoding) for split, path in paths.items() if path != NO_SOURCE
        }
        for split, table in tables.items():
            if not len(table) and not table.problems:
                setting, none = ("source", "") if split == "train" else (f"{split}_source", ", or data/none")
                raise ValueError(f"prepare.{setting}: {table.path} has a header and no rows; name another file{none}")
        for setting, name, usual in (
            ("kind_column", self.kind_column, Columns.kind),
            ("split_column", self.split_column, Columns.split),
        ):
            # Files may lack the usual names; another one was meant to be read.
            if name not in (None, usual) and not any(name in table.header for table in tables.values()):
                found = ", ".join(dict.fromkeys(column for table in tables.values() for column in table.header))
                raise ValueError(
                    f"prepare.{setting}: no file has a column {name!r}; their columns: {found}; set it to one of them,"
                    " or null"
                )
        return tables

    def read_unlabelled(self) -> RawRows:
        """Return the rows of the file of unlabelled texts, none where there is no such file; intents are empty."""
        if self.unlabelled_source == NO_SOURCE:
            return RawRows(NO_SOURCE)
        rows = read_rows(self.unlabelled_source, self.columns, self.encoding, labelled=False)
        if not len(rows) and not rows.problems:
            raise ValueError(f"prepare.unlabelled_source: {rows.path} holds no text; set it to data/none")
        return rows
