"""Cells of a table, where what they hold may be no valid text."""

import re
from typing import Any

import pyarrow as pa

SURROGATES = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """Return `text` with U+FFFD for each byte that could not be decoded, so that what is written is valid Unicode."""
    return text if text.isascii() else SURROGATES.sub("\ufffd", text)


def holds_rows(cell: str) -> bool:
    """Tell whether a cell of a TSV holds what looks like whole rows, as after a quotation mark that is left open."""
    return "\t" in cell and ("\n" in cell or "\r" in cell)


def plain_values(column: pa.Array) -> list[Any]:
    """Return the cells of a Parquet column; where strings hold bytes that are not UTF-8, those cells as bytes."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return [decoded(cell) for cell in column.cast(pa.large_binary()).to_pylist()]


def decoded(cell: bytes | None) -> str | bytes | None:
    """Return a cell as text, if it is UTF-8."""
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return cell
