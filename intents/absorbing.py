"""Moves and scales values of a graph by changing constants that are there anyway, so that it costs no operator.

Shapes: d values of a tensor's last dimension.
"""

from collections import Counter
from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Values = NDArray[np.float64]
_HEADS_FIRST = [0, 2, 1, 3]  # from (text, token, head, width) to (text, head, token, width), and back


class Constants:
    """The constants of a graph, who reads what, and which of them can take in a move or a scale."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.tables = {table.name: table for table in model.graph.initializer}
        self._results = {value.name for value in model.graph.output}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)
        read = Counter(name for node in model.graph.node for name in node.input)
        self._own = {name for name in self.tables if read[name] == 1}
        self._biased: dict[str, tuple[str, str]] = {}  # weights and bias, by the result, where the bias is its own
        for following, bias in following_sums(model).values():
            (product,) = set(following.input) - {bias}
            if bias in self._own and product not in self._results and self._is_inner(following.output[0]):
                self._biased[following.output[0]] = (self._makers[product].input[1], bias)

    def move(self, source: str, readers: Collection[str], middles_d: Values) -> bool:
        """Subtract `middles_d` from `source` for the nodes named `readers`, and tell whether that was possible.

        It is where a layer norm gives `source`, and all other readers add it to a product with a bias: what the norm's
        bias loses, that bias gets.
        """
        norm = self._makers.get(source)
        if norm is None or norm.op_type != "LayerNormalization" or source in self._results:
            return False
        shift = norm.input[2] if len(norm.input) > 2 else ""
        others = [node for node in self._readers[source] if node.name not in readers]
        added = [name for node in others if node.op_type == "Add" for name in node.input if name != source]
        if shift not in self._own or len(added) < len(others) or any(name not in self._biased for name in added):
            return False
        self._add(shift, -middles_d)
        for name in added:
            self._add(self._biased[name][1], middles_d)
        return True

    def move_and_scale(self, source: str, readers: Collection[str], middles_d: Values, scales_d: Values) -> bool:
        """Subtract `middles_d` from `source`, divide it by `scales_d`, and tell whether that was possible.

        It is where attention gives `source` to the nodes named `readers` and to no others: its weights sum to 1, so
        that the values can be moved and scaled before.
        """
        weighted = self._through_heads(source)
        others = [node for node in self._readers[source] if node.name not in readers]
        if weighted is None or weighted.op_type != "MatMul" or others or source in self._results:
            return False
        attention, values = self._makers.get(weighted.input[0]), self._through_heads(weighted.input[1], parted=True)
        if attention is None or attention.op_type != "Softmax" or values is None:
            return False
        axis = [helper.get_attribute_value(attribute) for attribute in attention.attribute if attribute.name == "axis"]
        weights, bias = self._biased.get(values.output[0], ("", ""))
        if axis not in ([], [-1], [3]) or weights not in self._own:
            return False
        store(self.tables[bias], (numpy_helper.to_array(self.tables[bias]) - middles_d) / scales_d)
        store(self.tables[weights], numpy_helper.to_array(self.tables[weights]) / scales_d)
        return True

    def _add(self, name: str, values_d: Values) -> None:
        store(self.tables[name], numpy_helper.to_array(self.tables[name]) + values_d)

    def _is_inner(self, name: str) -> bool:
        return len(self._readers.get(name, [])) == 1 and name not in self._results

    def _through_heads(self, name: str, parted: bool = False) -> onnx.NodeProto | None:
        """Return the node whose result, its heads put together or `parted`, is `name`; None where there is none."""
        kinds = ("Transpose", "Reshape") if parted else ("Reshape", "Transpose")
        for position, kind in enumerate(kinds):
            node = self._makers.get(name)
            if node is None or node.op_type != kind or (position > 0 or parted) and not self._is_inner(name):
                return None
            if kind == "Transpose" and list(helper.get_attribute_value(node.attribute[0])) != _HEADS_FIRST:
                return None
            name = node.input[0]
        return self._makers.get(name) if self._is_inner(name) else None


def following_sums(model: onnx.ModelProto) -> dict[str, tuple[onnx.NodeProto, str]]:
    """Return for each product that only a sum with a constant vector reads: that sum and the vector's name."""
    tables = {table.name: table for table in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for node in model.graph.node:
        following = readers.get(node.output[0], []) if node.op_type == "MatMul" else []
        if len(following) == 1 and following[0].op_type == "Add":
            others = [name for name in following[0].input if name != node.output[0]]
            if others and others[0] in tables and len(tables[others[0]].dims) == 1:
                found[node.name] = (following[0], others[0])
    return found


def store(table: onnx.TensorProto, values: NDArray[np.float64]) -> None:
    """Put `values` into `table` as fp32."""
    table.CopyFrom(numpy_helper.from_array(values.astype(np.float32), table.name))
