"""Integer variants of an exported graph: several ways, from the fastest to the most faithful.

`static`     matrix products in int8: 7-bit weights, one scale per column; 8-bit activations, made easier to round
             (intents.smoothing), with a scale that typical texts tell beforehand, or one per token on the way out of
             an activation function (intents.integers).
`tokens`     the same, but a scale per token everywhere.
`mixed`      the same, but the first third of the products in blocks (errors grow on their way): weights and activations
             have a scale for each 128 values.
`careful`    the same, but the first two thirds.
`blockwise`  every product in blocks.

In the first two a text's answer is the same whatever stands beside it in a batch; onnxruntime computes blocks of many
tokens otherwise than those of few. A word's embedding is 8 bits with a scale of its own: looking it up costs no
precision worth mentioning, and it is half of a small encoder's size.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from intents.exporting import strip_notes
from intents.integers import to_integers
from intents.smoothing import smooth, watch_activations

Recipe = Literal["static", "tokens", "mixed", "careful", "blockwise"]
RECIPES: tuple[Recipe, ...] = ("static", "tokens", "mixed", "careful", "blockwise")
_SHARE_IN_BLOCKS = {"static": 0, "tokens": 0, "mixed": 1 / 3, "careful": 2 / 3, "blockwise": 1}  # of the products
_BLOCK = 128  # values that share a scale
_LARGE_TABLE = 256  # rows from which an embedding table is worth quantising


def quantise(source: Path, target: Path, recipe: Recipe, texts: Iterable[Sequence[int]]) -> None:
    """Write the graph at `source` to `target` with its weights as `recipe` says.

    `texts` are token ids of typical texts, which show how large activations are.
    """
    model = onnx.load(source)
    names = products(model)
    in_blocks = set(names[: int(_SHARE_IN_BLOCKS[recipe] * len(names))])
    whole = set(names) - in_blocks
    if whole:
        activations = watch_activations(model, whole, texts)
        # One-sided activations, such as GELU's, are rounded finely enough as they are: smoothing them gains nothing.
        one_sided = {
            node.name for node in model.graph.node if node.name in whole and activations[node.input[0]].one_sided
        }
        smooth(model, whole - one_sided, activations)
        to_integers(model, whole, activations, known_scales=recipe == "static")
    if in_blocks:
        model = _quantise_in_blocks(model, in_blocks)
    _quantise_embeddings(model)
    strip_notes(model)
    model.producer_name, model.producer_version = "driver-intents", ""
    onnx.checker.check_model(model)
    onnx.save(model, target)


def products(model: onnx.ModelProto) -> list[str]:
    """Return the names of the matrix products with constant weights, in their order."""
    tables = {table.name for table in model.graph.initializer if len(table.dims) == 2}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in tables]


def _quantise_in_blocks(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    others = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in names]
    config = DefaultWeightOnlyQuantConfig(
        bits=8, block_size=_BLOCK, is_symmetric=True, accuracy_level=4, op_types_to_quantize=("MatMul",)
    )
    quantizer = MatMulNBitsQuantizer(model, bits=8, accuracy_level=4, nodes_to_exclude=others, algo_config=config)
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    quantizer.process()
    quantised: onnx.ModelProto = quantizer.model.model
    return quantised


def _quantise_embeddings(model: onnx.ModelProto) -> None:
    """Replace each large float table that is looked up by an int8 table and a scale per row, in standard operators."""
    graph = model.graph
    tables = {table.name: table for table in graph.initializer}
    readers = [name for node in graph.node for name in node.input]
    nodes = []
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_large(table) or readers.count(table.name) != 1:
            nodes.append(node)
            continue
        name, output = table.name, node.output[0]
        weights = numpy_helper.to_array(table)
        scales = np.abs(weights).max(axis=1, keepdims=True) / np.float32(127)
        scales[scales == 0] = 1
        graph.initializer.remove(table)
        graph.initializer.append(numpy_helper.from_array(np.rint(weights / scales).astype(np.int8), f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
        nodes += [
            helper.make_node("Gather", [f"{name}_int8", node.input[1]], [f"{output}_int8"], f"{node.name}_int8"),
            helper.make_node("Gather", [f"{name}_scale", node.input[1]], [f"{output}_scale"], f"{node.name}_scale"),
            helper.make_node("Cast", [f"{output}_int8"], [f"{output}_float"], f"{node.name}_cast", to=1),
            helper.make_node("Mul", [f"{output}_float", f"{output}_scale"], [output], node.name),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _is_large(table: onnx.TensorProto) -> bool:
    return table.data_type == onnx.TensorProto.FLOAT and len(table.dims) == 2 and table.dims[0] >= _LARGE_TABLE
