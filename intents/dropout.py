"""Dropout whose random numbers cost little.

torch's own draws a double for every activation, one after the other: on a CPU that takes a fifth of a training step.
Here a 64-bit number decides about eight activations, and comes from a generator that is twice as fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

_BITS = 8  # that decide about an activation
_LOWEST = -(2 ** (_BITS - 1))


def drop(activations: torch.Tensor, share: float) -> torch.Tensor:
    """Return `activations` of any shape with that share of them 0, and the others scaled up to make up.

    The share, above 0 and below 1, is rounded to a multiple of 1/256 that lies between them. The mask follows from
    torch's random state, as that of torch.nn.functional.dropout does (but is another one).
    """
    dropped = min(max(round(share * 2**_BITS), 1), 2**_BITS - 1)
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    num_words = -(-activations.numel() * _BITS // 64)
    words = generator.integers(-(2**63), 2**63 - 1, num_words, np.int64, endpoint=True)
    draws = torch.from_numpy(words).view(torch.int8)[: activations.numel()].view(activations.shape)
    # 1 from the least kept value up, else 0: faster than a comparison, whose result is slow to convert.
    least = _LOWEST + dropped
    kept = draws.clamp_(least - 1, least).sub_(least - 1)
    return activations * kept.to(activations.dtype).mul_(2**_BITS / (2**_BITS - dropped))


class QuickDropout(nn.Dropout):
    """torch's Dropout by `drop`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the activations, some of them dropped while training."""
        return drop(input, self.p) if self.training and 0 < self.p < 1 else super().forward(input)


@contextmanager
def quick_dropout(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the dropout layers of `model` are quick ones, if it is on a CPU (a GPU draws in parallel)."""
    replaced = []
    if model.device.type == "cpu":
        for parent in model.modules():
            replaced += [(parent, name, child) for name, child in parent.named_children() if type(child) is nn.Dropout]
    for parent, name, child in replaced:
        setattr(parent, name, QuickDropout(child.p).train(child.training))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child.train(model.training))
