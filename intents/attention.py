"""Attention as this machine trains it fastest."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def trainable_attention(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """While it lasts, `model` has the attention whose backward pass is quickest on its device in `precision`.

    On a CPU the fused one of torch 2.13 takes ten times as long in bf16 as plain matrix products do (a third of a
    training step on short texts), while in fp32 it is the quicker one. benchmarks/training/notes.md has the figures.
    """
    usual = model.config._attn_implementation
    replaced = model.device.type == "cpu" and precision == "bf16" and usual == "sdpa"
    if replaced:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if replaced:
            model.set_attn_implementation(usual)
