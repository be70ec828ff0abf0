"""What answers texts, and the batches it does that in.

Shapes: n texts, b texts of a batch, t tokens, c intents.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from intents.calibrations import Calibration

# Padded tokens of a batch. On a CPU small batches stay in its caches; a GPU wants to be filled.
CPU_TOKENS = 512
GPU_TOKENS = 65_536


class Scorer(Protocol):
    """A classifier with its calibration."""

    @property
    def intents(self) -> Sequence[str]:
        """Names of the intents, in the order of their labels."""

    @property
    def calibration(self) -> Calibration:
        """What turns its probabilities into answers."""

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the calibrated probability of every intent, (n, c)."""


def budget_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Yield batches of indices, the shortest texts first, each of at most `max_tokens` tokens with its padding.

    A text that alone is longer makes a batch of its own.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > max_tokens:
            yield order[start:end]
            start = end
