"""Several texts in one row, instead of one that is padded to the longest: a GPU computes for little but tokens.

For encoders like BERT while they are trained. Embeddings and layers see rows that are filled with texts; a mask keeps
each text's attention to itself, and positions count from its start (Krell et al. 2021, Efficient Sequence Packing
without Cross-contamination). Before the head the texts are apart again.

Shapes: b texts, t tokens of a padded text, r rows, l places of a row, d hidden size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from intents.batching import PaddingCollator
from intents.first_token import is_shortened

_SHORTEST_ROW = 64  # what a GPU's attention computes at once
_ALIGNED = 8  # what its memory-efficient attention wants rows to be a multiple of
_SIZES = 24  # of the usual number of rows: what it is rounded up to, so that there are few shapes to record


class PackingCollator(PaddingCollator):
    """Pads texts to the longest of all, and says in which places of how many rows their tokens are to be computed."""

    def __init__(self, pad_token_id: int, lengths: Sequence[int], batch_size: float) -> None:
        longest = int(max(lengths))
        super().__init__(pad_token_id, longest)
        self._row_length = max(_SHORTEST_ROW, -(-longest // _ALIGNED) * _ALIGNED)
        usual = batch_size * float(np.mean(lengths)) / self._row_length
        self._round_to = max(2, round(usual / _SIZES))

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return what PaddingCollator does, and places, (r, l): which place of the flattened input_ids each is.

        Places that no text fills name the one behind the last.
        """
        batch = super().__call__(examples)
        num_texts, longest = batch["input_ids"].shape
        lengths_b = batch["attention_mask"].sum(1).numpy()
        starts_b = pack(lengths_b, self._row_length)
        num_rows = -(-(int(starts_b.max()) + 1) // (self._row_length * self._round_to)) * self._round_to
        places = np.full(num_rows * self._row_length, num_texts * longest)
        within_n = np.arange(lengths_b.sum()) - np.repeat(lengths_b.cumsum() - lengths_b, lengths_b)
        places[np.repeat(starts_b, lengths_b) + within_n] = (
            np.repeat(np.arange(num_texts) * longest, lengths_b) + within_n
        )
        self.padded_tokens += len(places) - num_texts * longest
        return batch | {"places": torch.from_numpy(places.reshape(num_rows, self._row_length))}


def pack(lengths_b: NDArray[np.int64], row_length: int) -> NDArray[np.int64]:
    """Return where each text starts in rows of `row_length`, one after the other, none across two of them.

    Longest first, each goes to the row where it leaves the least room (best fit decreasing).
    """
    starts_b = np.empty(len(lengths_b), dtype=np.int64)
    rows_with: list[list[int]] = [[] for _ in range(row_length)]  # room -> rows
    rooms = 0  # bit by bit whether there are rows with so much room
    num_rows = 0
    order = np.argsort(-lengths_b, kind="stable")
    for text, length in zip(order.tolist(), lengths_b[order].tolist(), strict=True):
        if enough := rooms >> length:
            room = length + (enough & -enough).bit_length() - 1  # the least of them
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms ^= 1 << room
        else:
            room, row, num_rows = row_length, num_rows, num_rows + 1
        starts_b[text] = (row + 1) * row_length - room
        rows_with[room - length].append(row)
        rooms |= 1 << (room - length)
    return starts_b


@contextmanager
def packed(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, `model`, a BERT with a head, takes what PackingCollator gives, and without `places` what else."""
    model.base_model.forward = MethodType(_forward, model.base_model)
    try:
        yield
    finally:
        del model.base_model.forward


def _forward(
    bert: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    places: torch.Tensor | None = None,
    **kwargs: Any,
) -> Any:
    if places is None:
        return type(bert).forward(bert, input_ids, attention_mask, **kwargs)
    longest = input_ids.shape[1]
    filled_rl = places.clamp(max=input_ids.numel() - 1)
    hidden_rld = bert.embeddings(input_ids=input_ids.flatten()[filled_rl], position_ids=filled_rl % longest)
    text_rl = places // longest
    apart_rll = text_rl.unsqueeze(1) != text_rl.unsqueeze(2)
    mask_r1ll = hidden_rld.new_zeros(apart_rll.shape).masked_fill(apart_rll, -torch.inf).unsqueeze(1)
    *layers, last = bert.encoder.layer
    for layer in layers:
        hidden_rld = layer(hidden_rld, mask_r1ll)
    if is_shortened(last):
        mask_b11t = hidden_rld.new_zeros(input_ids.shape).masked_fill(attention_mask == 0, -torch.inf)
        hidden_btd = last(_unpack(hidden_rld, places, input_ids.shape), mask_b11t[:, None, None])
    else:
        hidden_btd = _unpack(last(hidden_rld, mask_r1ll), places, input_ids.shape)
    pooled = None if bert.pooler is None else bert.pooler(hidden_btd)
    return BaseModelOutputWithPooling(last_hidden_state=hidden_btd, pooler_output=pooled)


def _unpack(hidden_rld: torch.Tensor, places_rl: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return states of padded texts, (b, t, d) with (b, t) as `shape`, zeros where there is no token."""
    padded_nd = hidden_rld.new_zeros(shape.numel() + 1, hidden_rld.shape[-1])
    return padded_nd.index_copy(0, places_rl.flatten(), hidden_rld.flatten(0, 1))[:-1].unflatten(0, shape)
