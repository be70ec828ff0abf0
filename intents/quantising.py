"""Integer variants of an exported graph: several ways, from the fastest to the most faithful.

`dynamic`    matrix products in int8: 7-bit weights, one scale per column; 8-bit activations, one scale per product.
             Seven bits, since x86 processors without VNNI saturate the sums of 8-bit products, and the gate, run on
             a processor that has it, would never see the loss.
`smooth`     the same on a graph whose activations were made easier to round (intents.smoothing); where they are the
             worst, on the way out of the feed-forward blocks, with a scale for each token and, in the first two thirds,
             outliers in fp32.
`mixed`      the same, but the first third of the products in blocks (errors grow on their way): weights and activations
             have a scale for each 128 values.
`careful`    the same, but the first two thirds.
`blockwise`  every product in blocks.

In all of them a word's embedding is 8 bits with a scale of its own: looking it up costs no precision worth mentioning,
and it is half of a small encoder's size.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from intents.exporting import strip_notes
from intents.smoothing import activation_peaks, scale_tokens, smooth

Recipe = Literal["dynamic", "smooth", "mixed", "careful", "blockwise"]
RECIPES: tuple[Recipe, ...] = ("dynamic", "smooth", "mixed", "careful", "blockwise")
_SHARE_IN_BLOCKS = {"dynamic": 0, "smooth": 0, "mixed": 1 / 3, "careful": 2 / 3, "blockwise": 1}  # of the products
_BLOCK = 128  # values that share a scale
_LARGE_TABLE = 256  # rows from which an embedding table is worth quantising


def quantise(source: Path, target: Path, recipe: Recipe, texts: Iterable[Sequence[int]] = ()) -> None:
    """Write the graph at `source` to `target` with its weights as `recipe` says.

    `texts` are token ids of typical texts, from which the smoothed ones learn how large activations are.
    """
    model = onnx.load(source)
    products = _products(model)
    names = list(products)
    in_blocks = set(names[: int(_SHARE_IN_BLOCKS[recipe] * len(names))])
    in_fp32 = set[str]()
    if recipe not in ("dynamic", "blockwise"):
        narrowing = [name for name in names if products[name][0] > products[name][1]]
        with_outliers = set(narrowing) & set(names[: 2 * len(names) // 3])
        smoothed = _of_own_weights(model, names) - in_blocks
        in_fp32 = smooth(model, smoothed, with_outliers, activation_peaks(model, smoothed, texts))
        scale_tokens(model, set(narrowing) - in_blocks)
    if len(in_blocks) < len(products):
        model = _quantise_dynamically(model, in_blocks | in_fp32)
    if in_blocks:
        model = _quantise_in_blocks(model, in_blocks)
    _quantise_embeddings(model)
    strip_notes(model)
    model.producer_name, model.producer_version = "driver-intents", ""
    onnx.checker.check_model(model)
    onnx.save(model, target)


def _products(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Return the matrix products with constant weights, and the shape of their weights."""
    shapes = {weights.name: tuple(weights.dims) for weights in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and len(shapes.get(node.input[1], ())) == 2:
            rows, columns = shapes[node.input[1]]
            found[node.name] = (rows, columns)
    return found


def _of_own_weights(model: onnx.ModelProto, names: Sequence[str]) -> set[str]:
    """Return those of the products `names` whose weights no other node reads (layers of ALBERT share theirs)."""
    readers = Counter(name for node in model.graph.node for name in node.input)
    return {node.name for node in model.graph.node if node.name in set(names) and readers[node.input[1]] == 1}


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


def _quantise_dynamically(model: onnx.ModelProto, left_out: set[str]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Tells the quantiser not to ask for its symbolic shape inference, which products with constant weights never need.
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=sorted(left_out),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        return onnx.load(path)


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
