"""Layer normalisation that leaves activations in bfloat16.

Under autocast torch normalises in fp32 and gives fp32, so that residual sums, dropout and the copies that matrix
products need move twice the bytes. Its kernel can as well read and write bfloat16, with means, variances, scales and
shifts in fp32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from intents.first_token import BERT_LIKE


def _forward(norm: nn.LayerNorm, activations: torch.Tensor) -> torch.Tensor:
    if not norm.training:
        return nn.LayerNorm.forward(norm, activations)
    scale: torch.Tensor = norm.weight
    shift: torch.Tensor = norm.bias
    if activations.device.type != "cpu":  # other kernels take scales and shifts of the activations' type alone
        scale, shift = scale.bfloat16(), shift.bfloat16()
    with torch.autocast(activations.device.type, enabled=False):
        return nn.functional.layer_norm(activations.bfloat16(), norm.normalized_shape, scale, shift, norm.eps)


@contextmanager
def narrow_norms(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """While it lasts, `model` trains with its layer norms in bfloat16, if `precision` is "bf16".

    Encoders like BERT alone: these normalise every sum, so that its rounding does not add up from layer to layer.
    """
    alike = model.base_model.config.model_type in BERT_LIKE
    narrow = alike and precision == "bf16"
    norms: list[Any] = [module for module in model.modules() if narrow and type(module) is nn.LayerNorm]
    for norm in norms:
        norm.forward = MethodType(_forward, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
