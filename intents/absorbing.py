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

    def move(self, source: str, readers: Collection[str], middles_d: Values) -> bool:
        """Subtract `middles_d` from `source` for the nodes named `readers`, and tell whether that was possible.

        It is where a layer norm gives `source`, and all other readers add it to a product with a bias: what the norm's
        bias loses, that bias gets.
        """
        norm = self._makers.get(source)
        if norm is None or norm.op_type != "LayerNormalization" or source in self._results:
            return False
        shift = norm.input[2] if len(norm.input) > 2 else ""
        sums = [self._bias_beside(node, source) for node in self._readers[source] if node.name not in readers]
        if shift not in self._own or not all(sums):
            return False
        self._add(shift, -middles_d)
        for bias in sums:
            self._add(bias, middles_d)
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
        attention, values = (self._makers.get(name) for name in weighted.input)
        heads = self._through_heads(weighted.input[1], makes_heads=True)
        if attention is None or values is None or heads is None or attention.op_type != "Softmax":
            return False
        axis = [helper.get_attribute_value(attribute) for attribute in attention.attribute if attribute.name == "axis"]
        bias = self._bias_of(heads.output[0])
        product = self._makers.get(next((name for name in heads.input if name != bias), ""))
        if axis not in ([], [-1], [3]) or not bias or product is None or product.input[1] not in self._own:
            return False
        table = self.tables[product.input[1]]
        store(self.tables[bias], (numpy_helper.to_array(self.tables[bias]) - middles_d) / scales_d)
        store(table, numpy_helper.to_array(table) / scales_d)
        return True

    def _add(self, name: str, values_d: Values) -> None:
        store(self.tables[name], numpy_helper.to_array(self.tables[name]) + values_d)

    def _bias_beside(self, node: onnx.NodeProto, source: str) -> str:
        """Return the bias of the product that `node` adds to `source`; "" where there is none."""
        if node.op_type != "Add":
            return ""
        others = [name for name in node.input if name != source]
        return self._bias_of(others[0]) if others else ""

    def _bias_of(self, name: str) -> str:
        """Return the bias of the product that `name` is, with one that nothing else has, and one reader; else ""."""
        node = self._makers.get(name)
        if node is None or node.op_type != "Add" or not self._is_inner(name):
            return ""
        for product, bias in (tuple(node.input), tuple(node.input)[::-1]):
            maker = self._makers.get(product)
            if bias in self._own and len(self.tables[bias].dims) == 1 and maker is not None:
                return bias if maker.op_type == "MatMul" and self._is_inner(product) else ""
        return ""

    def _is_inner(self, name: str) -> bool:
        return len(self._readers.get(name, [])) == 1 and name not in self._results

    def _through_heads(self, name: str, makes_heads: bool = False) -> onnx.NodeProto | None:
        """Return the node whose result, its heads parted or put together again, is `name`; None where it is not so."""
        kinds = ("Transpose", "Reshape") if makes_heads else ("Reshape", "Transpose")
        for position, kind in enumerate(kinds):
            node = self._makers.get(name)
            if node is None or node.op_type != kind or (position > 0 or makes_heads) and not self._is_inner(name):
                return None
            if kind == "Transpose" and list(helper.get_attribute_value(node.attribute[0])) != _HEADS_FIRST:
                return None
            name = node.input[0]
        return self._makers.get(name) if self._is_inner(name) else None


def store(table: onnx.TensorProto, values: NDArray[np.float64]) -> None:
    """Put `values` into `table` as fp32."""
    table.CopyFrom(numpy_helper.from_array(values.astype(np.float32), table.name))
