"""The encoder's linear layers in 4 bits, after QLoRA (Dettmers et al. 2023), by bitsandbytes."""

import importlib
from typing import Any

import torch
from transformers import PreTrainedModel

from intents.layers import linear_layers


def require(package: str) -> Any:
    """Return the imported `package` of the extra `lora`.

    Raises:
        ValueError: it is not installed.

    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and lacks something itself
            raise
        raise ValueError(
            f"train.method: lora and qlora need {package}, which is not installed:"
            " pip install -c constraints.txt -e '.[lora]'"
        ) from None


def quantise_encoder(model: PreTrainedModel, compute_dtype: torch.dtype) -> None:
    """Replace the encoder's linear layers by layers of 4 bits (NF4, doubly quantised) that compute in `compute_dtype`.

    The pooler and the head stay as they are: they are trained.
    """
    bnb = require("bitsandbytes")
    for name in linear_layers(model):
        linear: Any = model.get_submodule(name)
        layer = bnb.nn.Linear4bit(
            linear.in_features, linear.out_features, linear.bias is not None, compute_dtype, device="meta"
        )
        layer.weight, layer.bias = _nf4(linear.weight), linear.bias
        layer.weight.module = layer
        # Where a CPU multiplies bfloat16, an evaluation would leave weights in a layout that passes on no gradient.
        layer.support_avx512bf16_for_cpu = False
        model.set_submodule(name, layer)


def round_encoder(model: PreTrainedModel) -> None:
    """Give the encoder's linear layers the values that 4 bits leave of them, in their own width."""
    bnb = require("bitsandbytes")
    for name in linear_layers(model):
        weight: Any = model.get_submodule(name).weight
        packed = _nf4(weight)
        weight.data = bnb.functional.dequantize_4bit(packed.data, packed.quant_state).to(weight.device, weight.dtype)


def _nf4(weight: torch.Tensor) -> Any:
    parameter = require("bitsandbytes").nn.Params4bit(weight.data, quant_type="nf4", compress_statistics=True)
    return parameter.to("cuda" if torch.cuda.is_available() else "cpu")


def paged_adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return AdamW whose states take 8 bits and move to main memory where a GPU's runs short (Dettmers et al. 2023)."""
    optimizer: torch.optim.Optimizer = require("bitsandbytes").optim.PagedAdamW8bit(groups)
    return optimizer
