import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from intents.quantising import quantise
from intents.smoothing import activation_peaks, scale_tokens, smooth

WIDTH = 32


@pytest.fixture
def graph():
    """Ids look up features, two of them a hundred times as large; two products read them, a third their sum."""
    chance = np.random.default_rng(0)
    table = chance.normal(size=(50, WIDTH)).astype(np.float32)
    table[:, [3, 17]] *= 100
    weights = {name: chance.normal(size=(WIDTH, WIDTH)).astype(np.float32) for name in ("q", "k", "narrow")}
    for name in ("q", "k"):
        weights[name][[3, 17]] /= 100
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["features"], "lookup"),
        helper.make_node("Cast", ["attention_mask"], ["unused"], "mask", to=1),
        helper.make_node("MatMul", ["features", "q"], ["queries"], "product_q"),
        helper.make_node("MatMul", ["features", "k"], ["keys"], "product_k"),
        helper.make_node("Add", ["queries", "keys"], ["both"], "together"),
        helper.make_node("MatMul", ["both", "narrow"], ["logits"], "product_narrow"),
    ]
    ids = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["b", "t"])
        for name in ("input_ids", "attention_mask")
    ]
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["b", "t", WIDTH])
    tables = [numpy_helper.from_array(values, name) for name, values in {"table": table, **weights}.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "small", ids, [logits], tables), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    return model


def logits_of(model, ids=((4, 9, 30),)):
    ids = np.array(ids)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]


def test_peaks_are_the_largest_magnitudes_over_all_texts(graph):
    table = numpy_helper.to_array(graph.graph.initializer[0])
    peaks = activation_peaks(graph, {"product_q", "product_k"}, [[1, 2], [7]])
    np.testing.assert_allclose(peaks["features"], np.abs(table[[1, 2, 7]]).max(0))


@pytest.mark.parametrize("with_outliers", [set(), {"product_narrow"}])
def test_a_smoothed_graph_computes_the_same(graph, with_outliers):
    want = logits_of(graph)
    names = {"product_q", "product_k", "product_narrow"}
    in_fp32 = smooth(graph, names, with_outliers, activation_peaks(graph, names, [[4, 9], [30]]))
    assert in_fp32 == {f"{name}_outliers" for name in with_outliers}
    np.testing.assert_allclose(logits_of(graph), want, rtol=1e-3, atol=1e-3 * np.abs(want).max())


def test_smoothing_levels_what_the_products_read(graph):
    before = activation_peaks(graph, {"product_q"}, [[4, 9], [30]])["features"]
    smooth(graph, {"product_q", "product_k"}, set(), {"features": before})
    after = activation_peaks(graph, {"product_q"}, [[4, 9], [30]])["features_smooth"]
    assert after.max() / np.median(after) < 0.2 * before.max() / np.median(before)


def test_tokens_of_any_size_get_a_scale_of_their_own(graph):
    table = numpy_helper.to_array(graph.graph.initializer[0]).copy()
    table[4] *= 1000
    table[9] = 0
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    want = logits_of(graph)
    names = {"product_q", "product_k", "product_narrow"}
    scale_tokens(graph, names)
    np.testing.assert_allclose(logits_of(graph), want, rtol=1e-3, atol=1e-3)
    (scaled,) = activation_peaks(graph, {"product_q"}, [[30]]).values()
    assert scaled.max() == pytest.approx(1)
    (nothing,) = activation_peaks(graph, {"product_q"}, [[9]]).values()
    assert nothing.max() == 0


def test_a_large_token_does_not_coarsen_the_int8_of_those_beside_it(graph, tmp_path):
    table = numpy_helper.to_array(graph.graph.initializer[0]).copy()
    table[4] *= 300
    narrow = np.random.default_rng(1).normal(size=(WIDTH, WIDTH // 2)).astype(np.float32)
    for index, values, name in ((0, table, "table"), (3, narrow, "narrow")):
        graph.graph.initializer[index].CopyFrom(numpy_helper.from_array(values, name))
    graph.graph.node[5].input[0] = "features"
    graph.graph.output[0].type.tensor_type.shape.dim[2].dim_value = WIDTH // 2
    onnx.save(graph, tmp_path / "model.onnx")
    differences = {}
    for recipe in ("dynamic", "smooth"):
        quantise(tmp_path / "model.onnx", tmp_path / f"{recipe}.onnx", recipe, [[4, 9, 30], [7, 8]])
        model = onnx.load(tmp_path / f"{recipe}.onnx")
        beside, alone = logits_of(model, ((4, 9, 30),))[0, 1:], logits_of(model, ((9, 30),))[0]
        differences[recipe] = np.abs(beside - alone).max() / np.abs(alone).max()
    assert differences["smooth"] < 0.02 < 0.2 < differences["dynamic"]


def test_int8_of_a_smoothed_graph_is_several_times_as_faithful(graph, tmp_path):
    onnx.save(graph, tmp_path / "model.onnx")
    want = logits_of(graph)
    differences = {}
    for recipe in ("dynamic", "smooth"):
        quantise(tmp_path / "model.onnx", tmp_path / f"{recipe}.onnx", recipe, [[4, 9, 30], [7, 8]])
        found = logits_of(onnx.load(tmp_path / f"{recipe}.onnx"))
        differences[recipe] = np.abs(found - want).mean()
    assert differences["smooth"] < 0.5 * differences["dynamic"]


def test_weights_that_two_inputs_share_are_left_alone(graph, tmp_path):
    graph.graph.node[5].input[1] = "q"  # as the layers of ALBERT do
    del graph.graph.initializer[3]
    onnx.save(graph, tmp_path / "model.onnx")
    quantise(tmp_path / "model.onnx", tmp_path / "smooth.onnx", "smooth", [[4, 9, 30], [7, 8]])
    made = {name for node in onnx.load(tmp_path / "smooth.onnx").graph.node for name in node.output}
    assert "features_smooth" in made  # for the other weights that read it
    assert "both_smooth" not in made
    differences = {}
    for recipe in ("dynamic", "smooth"):
        quantise(tmp_path / "model.onnx", tmp_path / f"{recipe}.onnx", recipe, [[4, 9, 30], [7, 8]])
        differences[recipe] = np.abs(logits_of(onnx.load(tmp_path / f"{recipe}.onnx")) - logits_of(graph)).mean()
    assert differences["smooth"] < 1.2 * differences["dynamic"]
