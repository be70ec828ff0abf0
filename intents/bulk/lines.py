"""CSV and JSON records one at a time, however damaged the file: a bad line costs itself and no other row."""

import csv
import json
from collections import deque
from collections.abc import Iterator
from typing import Any, TextIO

from intents.cells import holds_rows

_LONGEST_RECORD = 1 << 22  # characters; a longer one is a quote left open, or no table at all


def read_lines(file: TextIO) -> Iterator[tuple[str, str]]:
    """Yield each line and "", or the beginning of a line that is far too long and the reason; in constant memory."""
    while line := file.readline(_LONGEST_RECORD):
        if len(line) < _LONGEST_RECORD or line.endswith("\n"):
            yield line, ""
            continue
        while (rest := file.readline(_LONGEST_RECORD)) and not rest.endswith("\n"):
            pass
        yield line[:1000], f"line longer than {_LONGEST_RECORD} characters"


class _Feed:
    """Hands lines to a csv.reader and remembers those that the record at hand is made of."""

    def __init__(self, lines: Iterator[tuple[str, str]]) -> None:
        self._lines = lines
        self._again: deque[tuple[str, str]] = deque()
        self.taken: list[tuple[str, str]] = []
        self._characters = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line, problem = self._again.popleft() if self._again else next(self._lines)
        self.taken.append((line, problem))
        self._characters += len(line)
        if problem or self._characters > _LONGEST_RECORD:
            raise csv.Error(problem or "a quote is left open")
        return line

    def start_record(self) -> None:
        self.taken, self._characters = [], 0

    def give_back_all_but_first(self) -> None:
        self._again.extendleft(reversed(self.taken[1:]))


def csv_records(file: TextIO, delimiter: str) -> Iterator[tuple[list[str], str]]:
    """Yield the cells of each record, the header first, and what is wrong with the record ("" for nothing).

    A record that is not valid CSV gives up its first line alone; reading goes on with the next line. So does one of
    tabs that spans lines with tabs: most who write TSV quote nothing, and a quote at a field's start is part of a text.
    """
    csv.field_size_limit(2 * _LONGEST_RECORD)
    feed = _Feed(read_lines(file))
    while True:
        reader = csv.reader(feed, delimiter=delimiter, strict=True)
        try:
            feed.start_record()
            for cells in reader:
                if delimiter == "\t" and len(feed.taken) > 1 and any(map(holds_rows, cells)):
                    raise csv.Error("a quote is left open")
                yield cells, "" if cells else "empty line"
                feed.start_record()
            return
        except csv.Error as error:
            line = feed.taken[0][0]
            feed.give_back_all_but_first()
            cells = next(csv.reader([line], delimiter=delimiter))
            yield cells, f"not valid CSV: {error}"


def json_records(file: TextIO) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the object on each line, or an empty one and what is wrong with the line."""
    for line, problem in read_lines(file):
        if problem or not line.strip():
            yield {}, problem or "empty line"
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield {}, f"not valid JSON: {getattr(error, 'msg', 'nested too deep, or a number too long')}"
            continue
        yield (value, "") if isinstance(value, dict) else ({}, f"not a JSON object: {type(value).__name__}")
