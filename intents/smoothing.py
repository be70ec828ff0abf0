"""Makes a graph's activations easier to put into int8.

The activations of a product share a scale, at least those of one token: the largest of them sets it, and rounds the
rest the more coarsely. So each value of a product's input is divided by a number of its own, and the row of the weights
that meets it is multiplied by the same (SmoothQuant, Xiao et al. 2023, equation 4).

Shapes: t tokens, d inputs of a product, e outputs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

BELOW_ZERO = 0.25  # how far, relative to a token's largest value, GELU and its like reach below 0, and a little more
_FEW = 1e-3  # share of the tokens that may reach further
_STRENGTH = 0.7  # share of an activation's range that the weights take over: alpha of SmoothQuant, chosen on validation
_LEAST = 1e-5  # keeps values that are always 0 out of the logarithms
_TOKENS_AT_ONCE = 1024


@dataclass(frozen=True)
class Activations:
    """What typical texts say of an input of products.

    The largest magnitude of each value, the sum over all tokens of the products of each two values, and which side of 0
    they are on.
    """

    peaks_d: NDArray[np.float32]
    moments_dd: NDArray[np.float64]
    one_sided: bool = False  # hardly a token reaches below -BELOW_ZERO times its largest value


class _Seen:
    """What has been seen of one input; texts wait until there are enough for a product that is worth its while."""

    def __init__(self) -> None:
        self.far_below = 0
        self._peaks: list[NDArray[np.float32]] = []
        self._moments_dd: NDArray[np.float64] | float = 0.0
        self._waiting: list[NDArray[np.float32]] = []
        self._num_waiting = 0

    def add(self, values_td: NDArray[np.float32]) -> None:
        self.far_below += int((values_td.min(axis=1) < -BELOW_ZERO * values_td.max(axis=1)).sum())
        self._waiting.append(values_td)
        self._num_waiting += len(values_td)
        if self._num_waiting >= _TOKENS_AT_ONCE:
            self._digest()

    def _digest(self) -> None:
        values_td = np.concatenate(self._waiting)
        self._peaks.append(np.abs(values_td).max(axis=0))
        exact_td = values_td.astype(np.float64)  # so that the number of threads decides nothing
        self._moments_dd = self._moments_dd + exact_td.T @ exact_td
        self._waiting, self._num_waiting = [], 0

    def peaks_and_moments(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        if self._waiting:
            self._digest()
        return np.max(self._peaks, axis=0), np.asarray(self._moments_dd)


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
    seen: dict[str, _Seen] = {name: _Seen() for name in inputs}
    num_tokens = 0
    for text in texts:
        ids_1t = np.asarray([text], dtype=np.int64)
        num_tokens += len(text)
        found = session.run(inputs, {"input_ids": ids_1t, "attention_mask": np.ones_like(ids_1t)})
        for name, values in zip(inputs, found, strict=True):
            seen[name].add(values.reshape(-1, values.shape[-1]))
    return {
        name: Activations(
            *seen[name].peaks_and_moments(),
            one_sided=seen[name].far_below <= _FEW * num_tokens,
        )
        for name in inputs
    }


def smooth(model: onnx.ModelProto, names: set[str], activations: dict[str, Activations]) -> None:
    """Smooth the inputs of the products `names`, and note in `activations` what the smoothed ones are like.

    The graph computes what it did before.
    """
    weights = {table.name: table for table in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.name in names:
            readers.setdefault(node.input[0], []).append(node)
    nodes = []
    for node in model.graph.node:
        source = node.input[0] if node.name in names else ""
        if source in readers:
            together = readers.pop(source)
            tables = [weights[reader.input[1]] for reader in together]
            before = activations[source]
            scales_d = _scales(before.peaks_d, [numpy_helper.to_array(table) for table in tables])
            for table in tables:
                table_de = numpy_helper.to_array(table) * scales_d[:, None]
                table.CopyFrom(numpy_helper.from_array(table_de, table.name))
            model.graph.initializer.append(numpy_helper.from_array(1 / scales_d, f"{source}_factors"))
            smoothed = f"{source}_smooth"
            nodes.append(helper.make_node("Mul", [source, f"{source}_factors"], [smoothed], smoothed))
            activations[smoothed] = Activations(
                before.peaks_d / scales_d,
                before.moments_dd / (scales_d[:, None] * scales_d),
            )
            for reader in together:
                reader.input[0] = smoothed
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _scales(peaks_d: NDArray[np.float32], tables: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what each value is divided by, (d,), with a geometric mean of 1."""
    largest_d = np.max([np.abs(table_de).max(axis=1) for table_de in tables], axis=0)
    logarithms_d = _STRENGTH * np.log(np.maximum(peaks_d, _LEAST))
    logarithms_d -= (1 - _STRENGTH) * np.log(np.maximum(largest_d, _LEAST))
    scales_d: NDArray[np.float32] = np.exp(logarithms_d - logarithms_d.mean()).astype(np.float32)
    return scales_d
