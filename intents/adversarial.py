"""Adversarial training: each text is learnt a second time, with its embeddings moved where the loss grows fastest.

The fast gradient method of Miyato, Dai and Goodfellow 2017 (Adversarial Training Methods for Semi-Supervised Text
Classification), on what the encoder's embeddings give: they may be frozen, and are normalised in most encoders.

Shapes: b texts, t tokens, d hidden size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from intents.layers import embeddings_of

_SHORTEST = 1e-12  # gradient; a text without any, which counts for nothing, is not moved
_TIME_MAJOR = ("xlnet",)  # (t, b, d), which a batch of as many texts as tokens would hide


class MovedEmbeddings:
    """Moves a model's embeddings of the texts whose tokens `mask_bt` has ones for, packed as `places_rl` says if given.

    `norm` is the Euclidean length of the move of a whole text; the unit is the mean length of the embeddings of its
    tokens, in which encoders differ.

    Raises:
        ValueError: the encoder's embeddings are no (b, t, d); in `found`, too.

    """

    def __init__(
        self, model: PreTrainedModel, norm: float, mask_bt: torch.Tensor, places_rl: torch.Tensor | None = None
    ) -> None:
        self._family: str = model.base_model.config.model_type
        if self._family in _TIME_MAJOR:
            raise self._refusal()
        self._embeddings: nn.Module = embeddings_of(model)
        self._norm = norm
        self._mask_bt = mask_bt
        self._text_rl = None if places_rl is None else places_rl // mask_bt.shape[1]
        self._move_btd: torch.Tensor | None = None

    @contextmanager
    def found(self) -> Iterator[None]:
        """While it lasts, a forward and a backward pass find where the loss grows fastest."""
        moves: list[torch.Tensor] = []
        lengths: list[torch.Tensor] = []

        def follow(_module: nn.Module, _inputs: Any, embedded_btd: Any) -> torch.Tensor:
            expected = (self._mask_bt if self._text_rl is None else self._text_rl).shape
            if not isinstance(embedded_btd, torch.Tensor) or embedded_btd.shape[:-1] != expected:
                raise self._refusal()
            moves.append(torch.zeros_like(embedded_btd, requires_grad=True))
            lengths.append(embedded_btd.detach().float().norm(dim=2))
            return embedded_btd + moves[-1]

        with _hook(self._embeddings, follow):
            yield
        if not moves:  # the encoder does without the module that it names as its embeddings
            raise self._refusal()
        gradient_btd = moves[-1].grad
        assert gradient_btd is not None  # the passes went through the embeddings
        if self._text_rl is None:
            steepness_b = gradient_btd.float().flatten(1).norm(dim=1).clamp(min=_SHORTEST)
            length_b = (lengths[-1] * self._mask_bt).sum(1) / self._mask_bt.sum(1).clamp(min=1)
            scale_bt1 = (self._norm * length_b / steepness_b).view(-1, 1, 1)
        else:
            steepness_b = self._sums(gradient_btd.float().square().sum(2)).sqrt().clamp(min=_SHORTEST)
            length_b = self._sums(lengths[-1]) / self._sums(torch.ones_like(lengths[-1])).clamp(min=1)
            scale_bt1 = (self._norm * length_b / steepness_b)[self._text_rl].unsqueeze(2)
        self._move_btd = gradient_btd * scale_bt1.to(gradient_btd.dtype)

    def _sums(self, values_rl: torch.Tensor) -> torch.Tensor:
        """Return the sums over the places of each text, and over those that no text fills, (b + 1,)."""
        assert self._text_rl is not None
        sums_b = values_rl.new_zeros(len(self._mask_bt) + 1)
        return sums_b.index_add_(0, self._text_rl.flatten(), values_rl.flatten())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it lasts, the embeddings of the same texts are moved there."""
        with _hook(self._embeddings, lambda _module, _inputs, embedded_btd: embedded_btd + self._move_btd):
            yield

    def _refusal(self) -> ValueError:
        return ValueError(
            f"train.adversarial_norm: the embeddings of {self._family} encoders cannot be moved; set it to 0"
        )


@contextmanager
def _hook(module: nn.Module, change: Any) -> Iterator[None]:
    handle = module.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()
