"""Trains only those rows of the embedding table that the training texts use.

A table of 30,000 tokens is half of a small encoder, and a dense optimizer touches all of it at every step, though the
tokens of the training texts are a tenth of it and no other row ever gets a gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from intents.batching import TokenizedTexts


class UsedRows(nn.Module):
    """Stands in for an embedding table: the rows of `tokens` are parameters, all others stay as they are.

    Takes and returns what the table does: token ids, (b, t), and their embeddings, (b, t, d).
    """

    table: torch.Tensor
    tokens: torch.Tensor
    row_of: torch.Tensor

    def __init__(self, table: nn.Embedding, tokens: NDArray[np.int64]) -> None:
        super().__init__()
        self.padding_idx = table.padding_idx  # encoders that count positions from the padding token read it
        weight = table.weight.detach()
        row_of = torch.full((len(weight),), -1)
        row_of[tokens] = torch.arange(len(tokens))
        # No part of the state: a copy of the best state need not hold what never changes.
        self.register_buffer("table", weight, persistent=False)
        self.register_buffer("tokens", torch.from_numpy(tokens).to(weight.device), persistent=False)
        self.register_buffer("row_of", row_of.to(weight.device), persistent=False)
        self.weight = nn.Parameter(weight[tokens].clone())

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, (b, t, d), of `input_ids`, (b, t)."""
        rows_bt = self.row_of[input_ids]
        trained_btd = nn.functional.embedding(rows_bt.clamp(min=0), self.weight)
        return torch.where(rows_bt.unsqueeze(-1) >= 0, trained_btd, self.table[input_ids])

    def whole(self) -> torch.Tensor:
        """Return the table with the trained rows in it."""
        return self.table.index_copy(0, self.tokens, self.weight.detach())


@contextmanager
def only_used_rows(model: PreTrainedModel, texts: TokenizedTexts) -> Iterator[None]:
    """While it lasts, only the embeddings of tokens in `texts` are parameters of `model`; afterwards all are.

    A table that is frozen, or no plain nn.Embedding, is left alone.
    """
    table = model.get_input_embeddings()
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        yield
        return
    used = UsedRows(table, texts.tokens())
    model.set_input_embeddings(used)
    try:
        yield
    finally:
        table.weight = nn.Parameter(used.whole())
        model.set_input_embeddings(table)
