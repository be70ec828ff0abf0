"""Whether training computes in bfloat16 or in fp32."""

import torch
from transformers import PreTrainedModel


def has_bfloat16() -> bool:
    """Return whether this machine multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_precision(precision: str, model: PreTrainedModel, in_four_bits: bool = False) -> str:
    """Return "bf16" or "fp32": `precision` itself, or for "auto" what suits the hardware and `model`.

    `in_four_bits` says that the layers of `model` are to be put into 4 bits; where they are, that is seen.

    Raises:
        ValueError: `precision` is "bf16", which the code of `model` in transformers cannot have.

    """
    model_type = model.base_model.config.model_type
    # DeBERTa's code masks its scores with the least number that queries can have: fp32's, after the biases of version 1
    # and after layers of 4 bits.
    in_four_bits |= any(hasattr(weight, "quant_state") for weight in model.base_model.parameters())
    overflows = model_type == "deberta" or (model_type == "deberta-v2" and in_four_bits)
    if precision == "bf16" and overflows:
        raise ValueError(f"train.precision=bf16: {model_type} models overflow in it; set it to auto or fp32")
    if precision == "auto":
        return "bf16" if has_bfloat16() and not overflows else "fp32"
    return precision
