"""Matrix products of a graph in int8, so that what a token gives depends on no other token beside its own text.

A scale that all activations of a product share, as dynamic quantisation has it, makes a text's answer depend on the
texts of its batch, and its largest value rounds all others the more coarsely. Here each token has a scale of its own,
or the scale is known beforehand. Weights are rounded such that their errors cancel on typical texts (GPTQ, Frantar et
al. 2023).

Shapes: t tokens, d inputs of a product, e outputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from intents.absorbing import following_sums
from intents.smoothing import BELOW_ZERO, Activations

DOMAIN = "com.microsoft"  # of onnxruntime's own operators
_LARGEST_WEIGHT = 63  # 7 bits: x86 processors without VNNI saturate the sums of 8-bit products
_LARGEST_ACTIVATION = 127
_DAMPING = 0.01  # of the mean square of the values, as in the paper
_ROWS_AT_ONCE = 128  # whose errors are passed on to the rest in one product
_LEAST = 1e-5  # keeps tokens that are 0 out of the divisors


def to_integers(
    model: onnx.ModelProto, names: set[str], activations: Mapping[str, Activations], known_scales: bool
) -> None:
    """Put the products `names` (MatMul with constant weights) into int8; weights have a scale per column.

    `activations` describe the inputs of the products. With `known_scales` the two-sided ones, which layer norms and
    attention keep within bounds, share the scale that their peaks ask for; larger values are clipped. The one-sided
    ones, some of which are ten times as large as most, have one per token, as all have without `known_scales`.
    """
    moments: dict[str, NDArray[np.float64]] = {}  # layers may share weights, as those of ALBERT do
    for node in model.graph.node:
        if node.name in names:
            moments[node.input[1]] = moments.get(node.input[1], 0) + activations[node.input[0]].moments_dd
    builder = _Builder(model, moments)
    for node in builder.graph_nodes:
        if node.name not in names:
            builder.keep(node)
        elif known_scales and not activations[node.input[0]].one_sided:
            builder.add_known(node, activations[node.input[0]].peak)
        else:
            builder.add_per_token(node, activations[node.input[0]].one_sided)
    builder.finish()


def round_weights(
    table_de: NDArray[np.float32], scales_e: NDArray[np.float32], moments_dd: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Return `table_de` in units of `scales_e`, rounded so that x @ table changes little for typical x.

    `moments_dd` is the sum of the outer products x xT of typical x. Row after row is rounded, and what that changes is
    made up for by the rows that follow: Frantar et al. 2023, algorithm 1, the rows that meet the largest x first.
    """
    order_d = np.argsort(-np.diag(moments_dd), kind="stable")
    damped_dd = moments_dd[np.ix_(order_d, order_d)]
    damped_dd[np.diag_indices_from(damped_dd)] += _DAMPING * np.diag(damped_dd).mean() + np.finfo(np.float32).tiny
    factor_dd = np.linalg.cholesky(np.linalg.inv(damped_dd)).T
    left_de = table_de[order_d].astype(np.float64)
    rounded_de = np.empty(table_de.shape, dtype=np.int8)
    for start in range(0, len(left_de), _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, len(left_de))
        errors = np.empty_like(left_de[start:end])
        for row in range(start, end):
            units_e = np.clip(np.rint(left_de[row] / scales_e), -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
            rounded_de[order_d[row]] = units_e
            errors[row - start] = (left_de[row] - units_e * scales_e) / factor_dd[row, row]
            left_de[row + 1 : end] -= np.outer(factor_dd[row, row + 1 : end], errors[row - start])
        left_de[end:] -= factor_dd[start:end, end:].T @ errors
    return rounded_de


class _Builder:
    """Rewrites a graph node by node."""

    def __init__(self, model: onnx.ModelProto, moments: Mapping[str, NDArray[np.float64]]) -> None:
        self.model = model
        self._moments = moments
        self.graph_nodes = list(model.graph.node)
        self._tables = {table.name: table for table in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._made: set[str] = set()
        self._replaced: set[str] = set()
        self._biases = following_sums(model)

    def keep(self, node: onnx.NodeProto) -> None:
        """Take over `node`, unless it is a sum that a product has taken in."""
        if node.name not in self._replaced:
            self._nodes.append(node)

    def add_known(self, node: onnx.NodeProto, peak: float) -> None:
        """Add the product `node` whose activations reach `peak`, and the bias that follows it."""
        source = node.input[0]
        scale = self._constant(f"{source}_scale", np.array(peak / _LARGEST_ACTIVATION or 1, dtype=np.float32))
        middle = self._constant("middle", np.array(_LARGEST_ACTIVATION + 1, dtype=np.uint8))
        self._quantise(source, source, scale, middle)
        result, bias = node.output[0], ""
        if node.name in self._biases:
            following, bias = self._biases[node.name]
            self._replaced.add(following.name)
            result = following.output[0]
        self._product(node, scale, middle, bias, result)

    def add_per_token(self, node: onnx.NodeProto, one_sided: bool) -> None:
        """Add the product `node` with each token divided by its largest value, or magnitude unless `one_sided`."""
        source, result = node.input[0], node.output[0]
        below = BELOW_ZERO if one_sided else 1.0
        step = (1 + below) / 255
        scale = self._constant(f"scale_{below}", np.array(step, dtype=np.float32))
        middle = self._constant(f"middle_{below}", np.array(round(below / step), dtype=np.uint8))
        if f"{source}_divisors" not in self._made:
            axis = self._constant("tokens_axis", np.array([-1], dtype=np.int64))
            least = self._constant("tokens_least", np.array(_LEAST, dtype=np.float32))
            largest = source
            if not one_sided:
                largest = self._add("Abs", [source], f"{source}_magnitudes")
            largest = self._add("ReduceMax", [largest, axis], f"{source}_largest")
            self._add("Max", [largest, least], f"{source}_divisors")
            # One division per token is quicker than one per value.
            self._add("Reciprocal", [f"{source}_divisors"], f"{source}_reciprocals")
            self._add("Mul", [source, f"{source}_reciprocals"], f"{source}_divided")
        self._quantise(source, f"{source}_divided", scale, middle)
        self._product(node, scale, middle, "", f"{result}_divided")
        self._add("Mul", [f"{result}_divided", f"{source}_divisors"], result)

    def finish(self) -> None:
        """Put the nodes into the graph, and drop the weights in fp32 that nobody reads any more."""
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        for table in self._tables.values():
            if f"{table.name}_int8" in self._made and table.name not in read:
                graph.initializer.remove(table)
        if all(imported.domain != DOMAIN for imported in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(DOMAIN, 1))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self._made:
            self._made.add(name)
            self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _add(self, operator: str, inputs: list[str], output: str) -> str:
        self._made.add(output)
        self._nodes.append(helper.make_node(operator, inputs, [output], output))
        return output

    def _quantise(self, source: str, values: str, scale: str, middle: str) -> None:
        if f"{source}_int8" not in self._made:
            self._add("QuantizeLinear", [values, scale, middle], f"{source}_int8")

    def _product(self, node: onnx.NodeProto, scale: str, middle: str, bias: str, result: str) -> None:
        weights = node.input[1]
        if f"{weights}_int8" not in self._made:
            table_de = numpy_helper.to_array(self._tables[weights])
            scales_e = np.abs(table_de).max(axis=0) / np.float32(_LARGEST_WEIGHT)
            scales_e[scales_e == 0] = 1
            self._constant(f"{weights}_int8", round_weights(table_de, scales_e, self._moments[weights]))
            self._constant(f"{weights}_scales", scales_e)
        inputs = [f"{node.input[0]}_int8", f"{weights}_int8", scale, f"{weights}_scales", middle, "", bias]
        while not inputs[-1]:
            inputs.pop()
        self._nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [result], node.name, domain=DOMAIN))
