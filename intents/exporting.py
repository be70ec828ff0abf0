"""A trained classifier as an ONNX graph: token ids in, logits out.

Shapes: b texts, t tokens, c intents.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.export import Dim
from transformers import PreTrainedModel

# 20 has Gelu as one operator. 23 is a few per cent faster for BERT, but its RotaryEmbedding fails in onnxruntime
# 1.32 on batches of ModernBERT: the tables of angles are not repeated for every text.
OPSET = 20
_LARGEST_FILE = 2_000_000_000  # bytes: a protobuf message ends at 2 GiB, the graph's nodes included


class _LogitsOnly(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write `model` to `path`: input_ids and attention_mask, (b, t) int64, to logits, (b, c) float32.

    Batch and length are free. The same model gives the same bytes wherever it lies.

    Raises:
        ValueError: the weights are more than one ONNX file holds.

    """
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if size > _LARGEST_FILE:
        raise ValueError(
            f"the classifier's weights take {size / 1e9:.1f} GB in fp32, an ONNX file holds 2 GB: use models/classifier"
            " as it is, or train a smaller encoder"
        )
    ids_bt = torch.full((2, 7), 5)
    mask_bt = torch.ones_like(ids_bt)
    mask_bt[1, 4:] = 0  # a padded text: the example must not look as if all texts were full
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    # The exporter names every operator of packages that are not installed, and its own deprecations.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _plain_attention(model):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _LogitsOnly(model).eval(),
            (ids_bt, mask_bt),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    graph = program.model_proto
    strip_notes(graph)
    onnx.save(graph, path)


@contextmanager
def _plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the attention of `model` is products and a softmax: a quarter fewer nodes than the fused one."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def strip_notes(model: onnx.ModelProto) -> None:
    """Remove what describes how the graph was made: stack traces hold the paths of the machine that exported it."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]  # shapes of inner values, which runtimes infer anew
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
