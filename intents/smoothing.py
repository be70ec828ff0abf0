"""Makes a graph's activations easier to put into int8.

The activations of a product share a scale, at least those of one token: the largest of them sets it, and rounds the
rest the more coarsely. So the middle of each value's range is subtracted from it, which the product's bias makes up for
(Outlier Suppression+, Wei et al. 2023, section 4.1), and it is divided by a number of its own, by which the row of the
weights that meets it is multiplied (SmoothQuant, Xiao et al. 2023, equation 4).

Shapes: t tokens, d inputs of a product, e outputs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from intents.absorbing import Constants, following_sums, store

BELOW_ZERO = 0.25  # how far, relative to a token's largest value, GELU and its like reach below 0, and a little more
_FEW = 1e-3  # share of the tokens that may reach further
_STRENGTH = 0.7  # share of an activation's range that the weights take over: alpha of SmoothQuant, chosen on validation
_LEAST = 1e-5  # keeps values that are always 0 out of the logarithms
_TOKENS_AT_ONCE = 1024


@dataclass(frozen=True)
class Activations:
    """What typical texts say of an input of products.

    The least and the largest of each value, their sums over all tokens, the sums of the products of each two, and which
    side of 0 they are on.
    """

    lows_d: NDArray[np.float64]
    highs_d: NDArray[np.float64]
    sums_d: NDArray[np.float64]
    moments_dd: NDArray[np.float64]
    num_tokens: int
    one_sided: bool = False  # hardly a token reaches below -BELOW_ZERO times its largest value

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return float(max(self.highs_d.max(), -self.lows_d.min()))

    def moved(self, middles_d: NDArray[np.float64], scales_d: NDArray[np.float64]) -> "Activations":
        """Return what the values are like after `middles_d` were subtracted and they were divided by `scales_d`."""
        crossed_dd = np.outer(middles_d, self.sums_d - self.num_tokens * middles_d / 2)
        return Activations(
            (self.lows_d - middles_d) / scales_d,
            (self.highs_d - middles_d) / scales_d,
            (self.sums_d - self.num_tokens * middles_d) / scales_d,
            (self.moments_dd - crossed_dd - crossed_dd.T) / np.outer(scales_d, scales_d),
            self.num_tokens,
        )


class _Seen:
    """What has been seen of one input; texts wait until there are enough for a product that is worth its while."""

    def __init__(self, size: int) -> None:
        self._far_below = 0
        self._lows_d, self._highs_d = np.full(size, np.inf), np.full(size, -np.inf)
        self._sums_d, self._moments_dd = np.zeros(size), np.zeros((size, size))
        self._num_tokens = 0
        self._waiting: list[NDArray[np.float32]] = []

    def add(self, values_td: NDArray[np.float32]) -> None:
        self._waiting.append(values_td)
        if sum(len(waiting) for waiting in self._waiting) >= _TOKENS_AT_ONCE:
            self._digest()

    def _digest(self) -> None:
        values_td = np.concatenate(self._waiting)
        self._far_below += int((values_td.min(axis=1) < -BELOW_ZERO * values_td.max(axis=1)).sum())
        self._lows_d = np.minimum(self._lows_d, values_td.min(axis=0))
        self._highs_d = np.maximum(self._highs_d, values_td.max(axis=0))
        exact_td = values_td.astype(np.float64)  # so that the number of threads decides nothing
        self._sums_d += exact_td.sum(axis=0)
        self._moments_dd += exact_td.T @ exact_td
        self._num_tokens += len(values_td)
        self._waiting = []

    def activations(self) -> Activations:
        if self._waiting:
            self._digest()
        one_sided = self._far_below <= _FEW * self._num_tokens
        sums = (self._sums_d, self._moments_dd, self._num_tokens)
        return Activations(self._lows_d, self._highs_d, *sums, one_sided)


def watch_activations(
    model: onnx.ModelProto, names: set[str], texts: Iterable[Sequence[int]]
) -> dict[str, Activations]:
    """Return what `texts` (token ids) say of the inputs of the products `names`, by the inputs' names."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    inputs = sorted({node.input[0] for node in model.graph.node if node.name in names})
    watched.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # what goes wrong is raised
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen: dict[str, _Seen] = {}
    for text in texts:
        ids_1t = np.asarray([text], dtype=np.int64)
        found = session.run(inputs, {"input_ids": ids_1t, "attention_mask": np.ones_like(ids_1t)})
        for name, values in zip(inputs, found, strict=True):
            values_td = values.reshape(-1, values.shape[-1])
            seen.setdefault(name, _Seen(values_td.shape[1])).add(values_td)
    return {name: one.activations() for name, one in seen.items()}


def smooth(model: onnx.ModelProto, names: set[str], activations: dict[str, Activations]) -> None:
    """Smooth the inputs of the products `names`, and note in `activations` what the smoothed ones are like.

    The graph computes what it did before: products whose weights other nodes read, too, are left as they are (DeBERTa
    looks at positions through the weights that it looks at tokens through, the layers of ALBERT share all of theirs).
    """
    read = Counter(name for node in model.graph.node for name in node.input)
    names = {node.name for node in model.graph.node if node.name in names and read[node.input[1]] == 1}
    biases = _own_biases(model, names)
    constants = Constants(model)
    tables = constants.tables
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.name in names:
            readers.setdefault(node.input[0], []).append(node)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        source = node.input[0] if node.name in names else ""
        if source in readers:
            before = activations[source]
            middles_d = (before.lows_d + before.highs_d) / 2
            weights = [numpy_helper.to_array(tables[reader.input[1]]) for reader in readers[source]]
            scales_d = _scales(before.highs_d - middles_d, weights)
            smoothed = source
            at = {reader.name for reader in readers[source]}
            if not constants.move_and_scale(source, at, middles_d, scales_d):
                if not constants.move(source, at, middles_d):
                    smoothed = _add_step(model, nodes, "Sub", smoothed, middles_d)
                smoothed = _add_step(model, nodes, "Mul", smoothed, 1 / scales_d)
            activations[smoothed] = before.moved(middles_d, scales_d)
            for reader, table_de in zip(readers.pop(source), weights, strict=True):
                reader.input[0] = smoothed
                store(tables[reader.input[1]], table_de * scales_d[:, None])
                bias = tables[biases[reader.name]]
                store(bias, numpy_helper.to_array(bias) + middles_d @ table_de)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _own_biases(model: onnx.ModelProto, names: set[str]) -> dict[str, str]:
    """Return the vectors that are added to the products `names`; those that lack one of their own get one of zeros."""
    read = Counter(name for node in model.graph.node for name in node.input)
    tables = {table.name: table for table in model.graph.initializer}
    found = {name: bias for name, (_, bias) in following_sums(model).items() if read[bias] == 1}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.name in names and node.name not in found:
            result, bias = node.output[0], f"{node.name}_bias"
            node.output[0] = f"{result}_unmoved"
            nodes.append(helper.make_node("Add", [node.output[0], bias], [result], f"{node.name}_sum"))
            zeros_e = np.zeros(tables[node.input[1]].dims[1], dtype=np.float32)
            model.graph.initializer.append(numpy_helper.from_array(zeros_e, bias))
            found[node.name] = bias
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return found


def _add_step(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], operator: str, source: str, values_d: NDArray[np.float64]
) -> str:
    """Append to `nodes` the `operator` of `source` and `values_d`, and return its result's name."""
    result = f"{source}_{operator.lower()}"
    model.graph.initializer.append(numpy_helper.from_array(values_d.astype(np.float32), f"{result}_values"))
    nodes.append(helper.make_node(operator, [source, f"{result}_values"], [result], result))
    return result


def _scales(peaks_d: NDArray[np.float64], tables: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return what each value is divided by, (d,), with a geometric mean of 1."""
    largest_d = np.max([np.abs(table_de).max(axis=1) for table_de in tables], axis=0)
    logarithms_d = _STRENGTH * np.log(np.maximum(peaks_d, _LEAST))
    logarithms_d -= (1 - _STRENGTH) * np.log(np.maximum(largest_d, _LEAST))
    scales_d: NDArray[np.float64] = np.exp(logarithms_d - logarithms_d.mean())
    return scales_d
