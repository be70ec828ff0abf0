"""Makes a graph's activations easier to put into int8.

A dynamic int8 product has one scale for all its activations, which the largest of them sets: the rest are rounded the
more coarsely. So each value of a product's input is divided by a number of its own, and the row of the weights that
meets it is multiplied by the same (SmoothQuant, Xiao et al. 2023, equation 4). Where that is not enough, the values
with the largest activations and their weights stay in fp32 (the decomposition of LLM.int8(), Dettmers et al. 2022), and
each token gets a scale of its own.

Shapes: t tokens, d inputs of a product, e outputs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_STRENGTH = 0.6  # share of an activation's range that the weights take over: alpha of SmoothQuant, chosen on validation
_NUM_OUTLIERS = 16  # values of an input that stay in fp32
_LEAST = 1e-5  # keeps values that are always 0 out of the logarithms, and tokens that are 0 out of the divisors


def activation_peaks(
    model: onnx.ModelProto, names: set[str], texts: Iterable[Sequence[int]]
) -> dict[str, NDArray[np.float32]]:
    """Return the largest magnitude of each value, (d,), of the inputs of the products `names` over `texts`.

    `texts` are token ids; the keys are the names of the inputs.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    inputs = sorted({node.input[0] for node in model.graph.node if node.name in names})
    watched.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what goes wrong is raised
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    peaks: dict[str, NDArray[np.float32]] = {}
    for text in texts:
        ids_1t = np.asarray([text], dtype=np.int64)
        found = session.run(inputs, {"input_ids": ids_1t, "attention_mask": np.ones_like(ids_1t)})
        for name, values in zip(inputs, found, strict=True):
            peak_d = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0)
            peaks[name] = np.maximum(peaks.get(name, peak_d), peak_d)
    return peaks


def smooth(
    model: onnx.ModelProto, names: set[str], with_outliers: set[str], peaks: Mapping[str, NDArray[np.float32]]
) -> set[str]:
    """Smooth the inputs of the products `names`, and compute the outliers in those of `with_outliers` apart.

    The graph computes what it did before. Return the names of the products that were added for outliers: they are to
    stay in fp32.
    """
    weights = {table.name: table for table in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.name in names:
            readers.setdefault(node.input[0], []).append(node)
    nodes, in_fp32 = [], set()
    for node in model.graph.node:
        source = node.input[0] if node.name in names else ""
        if source in readers:
            together = readers.pop(source)
            tables = [weights[reader.input[1]] for reader in together]
            scales_d = _scales(peaks[source], [numpy_helper.to_array(table) for table in tables])
            factors_d = 1 / scales_d
            if len(together) == 1 and node.name in with_outliers:
                outliers = np.sort(np.argsort(peaks[source] * factors_d)[-_NUM_OUTLIERS:])
                factors_d[outliers] = 0  # in the int8 product they count nothing
                nodes += _outlier_product(model.graph, node, outliers, numpy_helper.to_array(tables[0]))
                in_fp32.add(nodes[-1].name)
            for table in tables:
                table_de = numpy_helper.to_array(table) * scales_d[:, None] * (factors_d != 0)[:, None]
                table.CopyFrom(numpy_helper.from_array(table_de.astype(np.float32), table.name))
            model.graph.initializer.append(numpy_helper.from_array(factors_d, f"{source}_factors"))
            nodes.append(
                helper.make_node("Mul", [source, f"{source}_factors"], [f"{source}_smooth"], f"{source}_smooth")
            )
            for reader in together:
                reader.input[0] = f"{source}_smooth"
        nodes.append(node)
        if f"{node.name}_outliers" in in_fp32:
            result = node.output[0]
            node.output[0] = f"{result}_int8"
            nodes.append(
                helper.make_node("Add", [f"{result}_int8", f"{result}_outliers"], [result], f"{node.name}_sum")
            )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return in_fp32


def scale_tokens(model: onnx.ModelProto, names: set[str]) -> None:
    """Divide each token of the inputs of the products `names` by its largest magnitude, and multiply the result by it.

    The graph computes what it did before, but all tokens use all of the one scale that an int8 product has: what a
    token gives hardly depends on those beside it.
    """
    constants: dict[str, NDArray[Any]] = {
        "tokens_axis": np.array([-1], dtype=np.int64),
        "tokens_least": np.array(_LEAST, dtype=np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes, scaled = [], set[str]()
    for node in model.graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        source, result = node.input[0], node.output[0]
        if source not in scaled:
            scaled.add(source)
            for operator, inputs, made in (
                ("Abs", [source], "magnitudes"),
                ("ReduceMax", [f"{source}_magnitudes", "tokens_axis"], "largest"),
                ("Max", [f"{source}_largest", "tokens_least"], "divisors"),
                ("Div", [source, f"{source}_divisors"], "divided"),
            ):
                nodes.append(helper.make_node(operator, inputs, [f"{source}_{made}"], f"{source}_{made}"))
        node.input[0], node.output[0] = f"{source}_divided", f"{result}_divided"
        nodes.append(node)
        nodes.append(
            helper.make_node("Mul", [node.output[0], f"{source}_divisors"], [result], f"{node.name}_multiplied")
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _scales(peaks_d: NDArray[np.float32], tables: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what each value is divided by, (d,), with a geometric mean of 1."""
    largest_d = np.max([np.abs(table_de).max(axis=1) for table_de in tables], axis=0)
    logarithms_d = _STRENGTH * np.log(np.maximum(peaks_d, _LEAST))
    logarithms_d -= (1 - _STRENGTH) * np.log(np.maximum(largest_d, _LEAST))
    scales_d: NDArray[np.float32] = np.exp(logarithms_d - logarithms_d.mean()).astype(np.float32)
    return scales_d


def _outlier_product(
    graph: onnx.GraphProto, node: onnx.NodeProto, outliers: NDArray[np.int64], table_de: NDArray[np.float32]
) -> list[onnx.NodeProto]:
    """Return the nodes that multiply the values `outliers` of the input of `node` by their rows of its weights."""
    source, name = node.input[0], f"{node.name}_outliers"
    graph.initializer.append(numpy_helper.from_array(outliers.astype(np.int64), f"{name}_values"))
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(table_de[outliers]), f"{name}_weights"))
    return [
        helper.make_node("Gather", [source, f"{name}_values"], [f"{name}_input"], f"{name}_input", axis=-1),
        helper.make_node("MatMul", [f"{name}_input", f"{name}_weights"], [f"{node.output[0]}_outliers"], name),
    ]
