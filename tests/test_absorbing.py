"""Moves and scales that constants of the graph take in: the graph computes the same with fewer operators."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from intents.absorbing import Constants
from intents.quantising import products
from intents.smoothing import smooth, watch_activations

pytest_plugins = ["tests.export_fixtures"]
IDS = np.array([[2, 5, 9, 7, 3], [2, 11, 3, 0, 0]])
INPUTS = {"input_ids": IDS, "attention_mask": (IDS != 0).astype(np.int64)}
TEXTS = [[2, 5, 9, 7, 3], [2, 11, 3], [2, 6, 4, 3]]


def run(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, INPUTS)


@pytest.fixture
def graph_of(exported):
    """Return a function that opens the graph of a tiny classifier."""
    return lambda architecture, head: onnx.load(exported(architecture, head))


def smoothed(model):
    """Smooth `model` in place, and return which operators that has added."""
    before = Counter(node.op_type for node in model.graph.node)
    names = set(products(model))
    smooth(model, names, watch_activations(model, names, TEXTS))
    return Counter(node.op_type for node in model.graph.node) - before


# Of the heads, those that other tests export, too: an export takes many times as long as its smoothing.
@pytest.mark.parametrize(
    ("architecture", "head"),
    [("bert", "mean"), ("bert", "first"), ("roberta", "mean"), ("deberta-v2", "native"), ("modernbert", "first")],
)
def test_a_smoothed_encoder_computes_the_same(graph_of, architecture, head):
    model = graph_of(architecture, head)
    want = run(model)[0]
    smoothed(model)
    np.testing.assert_allclose(run(model)[0], want, atol=2e-3)


def test_an_encoder_like_bert_moves_by_operators_what_activation_functions_give_and_nothing_else(graph_of):
    model = graph_of("bert", "mean")
    num_layers = sum(node.op_type == "Softmax" for node in model.graph.node)
    # What two layer norms and an activation function give is scaled; what attention gives is scaled beforehand.
    added = smoothed(model)
    assert added["Sub"] == num_layers  # of the activation functions, which no constant follows
    assert added["Mul"] == 3 * num_layers


def test_what_the_last_layer_reads_of_the_first_token_alone_is_moved_by_an_operator(graph_of):
    with_mean, with_first = (smoothed(graph_of("bert", head)) for head in ("mean", "first"))
    assert with_first["Sub"] > with_mean["Sub"]


def test_a_value_that_the_graph_gives_out_stays_as_it_is(graph_of):
    model = graph_of("bert", "mean")
    names = set(products(model))
    norm = next(node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization")
    attention = next(
        node.input[0]
        for node in model.graph.node
        if node.name in names
        and any(node.input[0] == other.output[0] for other in model.graph.node if other.op_type == "Reshape")
    )
    for name in (norm, attention):
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    want = run(model)
    smoothed(model)
    for found, expected in zip(run(model), want, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_constants_that_others_read_too_take_nothing_in(graph_of):
    model = graph_of("bert", "mean")
    norm = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    size = numpy_helper.to_array(Constants(model).tables[norm.input[2]]).size
    readers = {node.name for node in model.graph.node if norm.output[0] in node.input and node.op_type == "MatMul"}
    assert Constants(model).move(norm.output[0], readers, np.zeros(size))
    model.graph.node.append(helper.make_node("Identity", [norm.input[2]], ["bias_again"], "again"))
    assert not Constants(model).move(norm.output[0], readers, np.zeros(size))


def test_a_value_that_is_added_to_itself_is_moved_by_an_operator(graph_of):
    model = graph_of("bert", "mean")
    norm = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    size = numpy_helper.to_array(Constants(model).tables[norm.input[2]]).size
    readers = {node.name for node in model.graph.node if norm.output[0] in node.input and node.op_type == "MatMul"}
    model.graph.node.append(helper.make_node("Add", [norm.output[0], norm.output[0]], ["twice"], "twice"))
    assert not Constants(model).move(norm.output[0], readers, np.zeros(size))
