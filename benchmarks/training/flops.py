"""Floating-point operations that training needs, whatever a system spends on padding, recomputing or bookkeeping.

A product with a weight matrix costs 2 operations per parameter and token forward, 2 backward for the gradient of the
weights, 2 backward for the gradient of the inputs: the 6 N D of Kaplan et al. 2020 (Scaling Laws for Neural Language
Models, section 2.1), where all is trained. Added are the two attention products, 4 t^2 d operations a layer forward and
twice that backward for a text of t tokens and an encoder of width d (Chowdhery et al. 2022, PaLM, appendix B).
Subtracted is what freezing spares: frozen layers have no backward pass, a frozen weight beneath an adapter has no
gradient of its own, and nothing below the lowest trained layer needs a gradient, so that its query, key and value
products have none of their inputs; and what the last layer makes of the first token alone, beneath the head `first`.
Only useful tokens count: padding is no work. Embedding lookups, normalisations, activations, softmax, the loss and the
optimizer count nothing. The layers are those of Devlin et al. 2019 (BERT).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class EncoderShape:
    """Number and widths of the layers of a BERT-like encoder."""

    num_layers: int
    hidden: int
    intermediate: int

    @classmethod
    def of(cls, config: Any) -> "EncoderShape":
        """Return the shape that an encoder's configuration describes."""
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size)

    @property
    def layer_parameters(self) -> int:
        """Parameters of the weight matrices of one layer: query, key, value, output, and the two of the MLP."""
        return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate


def training_flops(
    lengths: Sequence[int],
    shape: EncoderShape,
    head: str,
    num_intents: int,
    freeze: str | int = "none",
    adapter_parameters: int | None = None,
) -> float:
    """Return the operations of one training pass over texts of these `lengths`, in tokens.

    `head` and `freeze` are those of params.yaml. With `adapter_parameters`, of LoRA's matrices in the layers that are
    not frozen, the encoder itself is (and its adapter is counted for all tokens, in the last layer, too).
    """
    lengths_n = np.asarray(lengths, dtype=np.float64)
    tokens, num_texts, square = lengths_n.sum(), len(lengths_n), shape.hidden**2
    products = np.full(shape.num_layers, 2 * tokens * shape.layer_parameters)
    attention = np.full(shape.num_layers, 4 * (lengths_n**2).sum() * shape.hidden)
    if head == "first":  # the last layer has keys and values of all tokens, all else of one token per text
        products[-1] = 2 * (tokens * 2 * square + num_texts * (shape.layer_parameters - 2 * square))
        attention[-1] = 4 * tokens * shape.hidden
    frozen = freeze if isinstance(freeze, int) else 0
    total = (products + attention).sum() + 2 * (products + attention)[frozen:].sum()
    if adapter_parameters is not None:
        total += 6 * tokens * adapter_parameters - products[frozen:].sum()
    if freeze != "none" or adapter_parameters is not None:
        lowest_is_short = head == "first" and frozen == shape.num_layers - 1
        total -= 2 * square * (2 * tokens + num_texts if lowest_is_short else 3 * tokens)
    return float(total + 6 * num_texts * _head_parameters(shape.hidden, num_intents, head))


def _head_parameters(hidden: int, num_intents: int, head: str) -> int:
    """Return the parameters of the matrices after the encoder, which see one vector per text; "native" is BERT's."""
    return num_intents * hidden + (hidden**2 if head == "native" else 0)
