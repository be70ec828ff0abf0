"""Attention as this machine trains it fastest.

Shapes: b texts, h heads, t tokens, d width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from intents.dropout import drop

PLAIN = "intents_plain"
_FOR_SHORT_TEXTS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_TOGETHER = 16  # fp32 values in a register of AVX-512


def plain_attention(
    module: nn.Module,
    query_bhtd: torch.Tensor,
    key_bhtd: torch.Tensor,
    value_bhtd: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return what attention gives, (b, t, h, d), by matrix products in the precision of `value_bhtd`.

    `attention_mask` is added to the scores, (b, h, t, t); `scaling` is 1 / sqrt(d) unless it is given. Keys and values
    may have fewer heads, which groups of the queries' share.
    """
    # Rotary embeddings leave queries and keys in fp32.
    query_bhtd, key_bhtd = query_bhtd.to(value_bhtd.dtype), key_bhtd.to(value_bhtd.dtype)
    sharing = query_bhtd.shape[1] // key_bhtd.shape[1]
    if sharing > 1:
        key_bhtd, value_bhtd = (heads.repeat_interleave(sharing, dim=1) for heads in (key_bhtd, value_bhtd))
    with torch.autocast(query_bhtd.device.type, enabled=False):
        scale = query_bhtd.shape[-1] ** -0.5 if scaling is None else scaling
        scores_bhtt = (query_bhtd * scale) @ key_bhtd.transpose(2, 3)
        if attention_mask is not None:
            scores_bhtt = scores_bhtt + attention_mask.to(scores_bhtt.dtype)
        weights_bhtt = _softmax(scores_bhtt).to(scores_bhtt.dtype)
        if module.training and dropout:
            weights_bhtt = drop(weights_bhtt, dropout)
        return (weights_bhtt @ value_bhtd).transpose(1, 2).contiguous(), None


def _softmax(scores_bhtt: torch.Tensor) -> torch.Tensor:
    """Return the softmax over the last dimension in fp32, whose kernel is several times as fast as that for bf16.

    But it works on 16 values at a time, and shorter rows one by one: those get columns that count nothing.
    """
    num_columns = scores_bhtt.shape[-1]
    padded = nn.functional.pad(scores_bhtt.float(), (0, max(0, _TOGETHER - num_columns)), value=-torch.inf)
    return padded.softmax(-1)[..., :num_columns]


@contextmanager
def trainable_attention(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """While it lasts, `model` has the attention whose backward pass is quickest on its device in `precision`.

    On a CPU the fused one of torch 2.13 takes ten times as long in bf16 as plain matrix products do (a third of a
    training step on short texts), while in fp32 it is the quicker one. Of a GPU's fused ones cuDNN's, which torch
    prefers on the newest, is made for long texts. benchmarks/training/notes.md has the figures.
    """
    usual = model.config._attn_implementation
    replaceable = precision == "bf16" and model.base_model.config._attn_implementation == "sdpa"
    plain, fused = (replaceable and model.device.type == device for device in ("cpu", "cuda"))
    if plain:
        model.set_attn_implementation(PLAIN)
    try:
        with sdpa_kernel(_FOR_SHORT_TEXTS) if fused else nullcontext():
            yield
    finally:
        if plain:
            model.set_attn_implementation(usual)


def plain_mask(*arguments: Any, **options: Any) -> torch.Tensor | None:
    """Return what is added to the scores, (b, 1, t, t), or None: the usual mask, but with the least number of bfloat16.

    That of fp32 would become -inf, and all of a row -inf where a padded token sees nothing but padding (ModernBERT's
    windows): its softmax is no number.
    """
    mask_b1tt: torch.Tensor | None = eager_mask(*arguments, **options)
    return None if mask_b1tt is None else mask_b1tt.clamp(min=torch.finfo(torch.bfloat16).min)


AttentionInterface.register(PLAIN, plain_attention)
AttentionMaskInterface.register(PLAIN, plain_mask)
