"""The last layer of an encoder for its first token alone.

A head that reads the last hidden state of the first token needs the keys and values of all tokens, but one query, and
one pass through what follows: of six layers that spares a seventh of the operations.

Shapes: b texts, t tokens, d hidden size, h heads, w width of a head.
"""

from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Their layers are made as BERT's are, down to the names of the parts.
BERT_LIKE = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})


def shorten_last_layer(encoder: PreTrainedModel) -> None:
    """Let the last layer of `encoder`, in place, give the first token's state alone, (b, 1, d).

    An encoder of another architecture than `BERT_LIKE` is left as it is: its first token's state is the same, at the
    price of all the others.
    """
    if encoder.config.model_type in BERT_LIKE:
        layer = encoder.get_submodule("encoder").layer[-1]
        layer.forward = MethodType(_forward, layer)


def is_shortened(layer: nn.Module) -> bool:
    """Return whether `shorten_last_layer` made `layer` what it is."""
    return getattr(layer.forward, "__func__", None) is _forward


def _forward(
    layer: Any,
    hidden_btd: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *_decoders: Any,
    encoder_attention_mask: None = None,
    past_key_values: None = None,
    **kwargs: Any,
) -> torch.Tensor:
    # At the top it would load transformers' registry, for which intents.classifier needs all of this module.
    from transformers.models.bert.modeling_bert import eager_attention_forward

    attention = layer.attention.self
    # As a view it would be multiplied in another way by weights that are trained than by those that are not.
    first_b1d = hidden_btd[:, :1].contiguous()
    query_bh1w, key_bhtw, value_bhtw = (
        projected.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
        for projected in (attention.query(first_b1d), attention.key(hidden_btd), attention.value(hidden_btd))
    )
    if attention_mask is not None and attention_mask.dim() == 4:  # (b, 1, t, t), or (b, 1, 1, t)
        attention_mask = attention_mask[:, :, :1]
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    dropout = attention.dropout.p if layer.training else 0.0
    seen_b1hw, _weights = attend(
        attention,
        query_bh1w,
        key_bhtw,
        value_bhtw,
        attention_mask,
        dropout=dropout,
        scaling=attention.scaling,
        **kwargs,
    )
    result: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(seen_b1hw.flatten(2), first_b1d))
    return result
