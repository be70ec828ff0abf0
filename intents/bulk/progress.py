"""The progress bar of a run over several tables."""

import sys
from collections.abc import Sequence

from tqdm import tqdm


class Bar:
    """Progress on standard error, where that is a terminal: rows, rows/s, and time left by the bytes read so far.

    `sizes` are the parts' stored bytes; 0 where they are unknown.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = list(sizes)
        self._bytes_before = 0
        self._bar = tqdm(unit=" rows", unit_scale=True, disable=None, file=sys.stderr, dynamic_ncols=True)

    def start(self, index: int) -> None:
        """Say that part `index` begins."""
        self._bytes_before = sum(self._sizes[:index])
        if len(self._sizes) > 1:
            self._bar.set_description(f"part {index + 1}/{len(self._sizes)}", refresh=False)

    def advance(self, rows: int, bytes_read: int) -> None:
        """Count `rows` more; guess their total from the share of the bytes they took."""
        done = self._bytes_before + bytes_read
        rows_done = self._bar.n + rows
        if done:
            self._bar.total = max(rows_done, round(rows_done * sum(self._sizes) / done))
        self._bar.update(rows)

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        self._bar.close()
