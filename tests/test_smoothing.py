import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from intents.integers import round_weights, to_integers
from intents.quantising import quantise
from intents.smoothing import Activations, smooth, watch_activations

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


def within(peak, one_sided=False):
    """Activations of which no more is known than their largest magnitude."""
    peaks = np.full(WIDTH, peak)
    return Activations(-peaks, peaks, np.zeros(WIDTH), np.eye(WIDTH), num_tokens=1, one_sided=one_sided)


def test_activations_are_watched_over_all_texts(graph):
    table = numpy_helper.to_array(graph.graph.initializer[0])
    seen = watch_activations(graph, {"product_q", "product_k"}, [[1, 2], [7]])
    assert set(seen) == {"features"}
    np.testing.assert_allclose(seen["features"].lows_d, table[[1, 2, 7]].min(0))
    np.testing.assert_allclose(seen["features"].highs_d, table[[1, 2, 7]].max(0))
    np.testing.assert_allclose(seen["features"].sums_d, table[[1, 2, 7]].sum(0), rtol=1e-4, atol=1e-4)
    assert seen["features"].num_tokens == 3
    assert seen["features"].peak == np.abs(table[[1, 2, 7]]).max()
    np.testing.assert_allclose(seen["features"].moments_dd, table[[1, 2, 7]].T @ table[[1, 2, 7]], rtol=1e-4, atol=1e-2)
    assert not seen["features"].one_sided


@pytest.mark.parametrize(("operator", "one_sided"), [("Gelu", True), ("Relu", True), ("Tanh", False)])
def test_activations_of_gelu_and_its_like_are_one_sided(graph, operator, one_sided):
    graph.graph.node.insert(5, helper.make_node(operator, ["both"], ["active"], "active"))
    graph.graph.node[6].input[0] = "active"
    (seen,) = watch_activations(graph, {"product_narrow"}, [[1, 2], [7]]).values()
    assert seen.one_sided == one_sided


@pytest.mark.parametrize("biased", [[], ["product_q"], ["product_q", "product_k"]])
def test_a_smoothed_graph_computes_the_same(graph, biased):
    table = numpy_helper.to_array(graph.graph.initializer[0])
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(table + 3, "table"))
    graph.graph.initializer.append(numpy_helper.from_array(np.arange(WIDTH, dtype=np.float32), "bias"))
    for place, name in enumerate(biased):  # both add the same vector
        product = next(node for node in graph.graph.node if node.name == name)
        result, product.output[0] = product.output[0], f"{name}_result"
        graph.graph.node.insert(4 + place, helper.make_node("Add", [f"{name}_result", "bias"], [result], f"{name}_add"))
    want = logits_of(graph)
    names = {"product_q", "product_k", "product_narrow"}
    smooth(graph, names, watch_activations(graph, names, [[4, 9], [30]]))
    np.testing.assert_allclose(logits_of(graph), want, rtol=1e-3, atol=1e-3 * np.abs(want).max())


def test_smoothing_centres_and_levels_what_the_products_read(graph):
    table = numpy_helper.to_array(graph.graph.initializer[0])
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(table + 3, "table"))
    names = {"product_q", "product_k"}
    seen = watch_activations(graph, names, [[4, 9], [30]])
    smooth(graph, names, seen)
    after = watch_activations(graph, names, [[4, 9], [30]])["features_sub_mul"]
    np.testing.assert_allclose(after.highs_d, -after.lows_d, rtol=1e-3, atol=1e-4)
    before = (seen["features"].highs_d - seen["features"].lows_d) / 2
    assert after.highs_d.max() / np.median(after.highs_d) < 0.2 * before.max() / np.median(before)
    noted = seen["features_sub_mul"]
    np.testing.assert_allclose(noted.highs_d, after.highs_d, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(noted.sums_d, after.sums_d, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(noted.moments_dd, after.moments_dd, rtol=1e-3, atol=1e-2)


def test_rounded_weights_make_up_for_each_others_errors():
    chance = np.random.default_rng(0)
    table = chance.normal(size=(200, 30)).astype(np.float32)
    inputs = (chance.normal(size=(1000, 10)) @ chance.normal(size=(10, 200))).astype(np.float32)  # they go together
    scales = np.abs(table).max(axis=0) / np.float32(63)
    rounded = round_weights(table, scales, inputs.astype(float).T @ inputs)
    assert np.abs(rounded).max() <= 63

    def error(integers):
        return np.square(inputs @ (integers * scales - table)).mean()

    assert error(rounded) < 0.2 * error(np.rint(table / scales))


def test_weights_of_inputs_that_are_never_seen_are_rounded_to_the_nearest():
    table = np.array([[0.2, -1.0], [1.0, 0.4]], dtype=np.float32)
    scales = np.full(2, 1 / 63, dtype=np.float32)
    np.testing.assert_array_equal(round_weights(table, scales, np.zeros((2, 2))), np.rint(table * 63))


@pytest.mark.parametrize("one_sided", [False, True])
def test_tokens_of_any_size_get_a_scale_of_their_own(graph, one_sided):
    table = np.abs(np.random.default_rng(3).normal(size=(50, WIDTH))).astype(np.float32)
    if not one_sided:
        table[:, ::2] *= -1
    table[4] *= 1000
    table[9] = 0
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    want = logits_of(graph)[0]
    names = {"product_q", "product_k"}
    unknown = within(1.0, one_sided)
    to_integers(graph, names, {"features": unknown}, known_scales=False)
    found = logits_of(graph)[0]
    for row in (0, 2):
        assert np.abs(found[row] - want[row]).max() < 0.05 * np.abs(want[row]).max()
    np.testing.assert_array_equal(found[1], 0)


def test_values_beyond_the_known_scale_are_clipped_and_the_bias_is_taken_in(graph):
    chance = np.random.default_rng(4)
    bias = chance.normal(size=WIDTH).astype(np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(bias, "bias"))
    graph.graph.node[4].input[1] = "bias"
    del graph.graph.node[3]
    table = chance.uniform(-1, 1, size=(50, WIDTH)).astype(np.float32)
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    clipped = onnx.ModelProto()
    clipped.CopyFrom(graph)
    clipped.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.clip(table, -0.5, 0.5), "table"))
    want = logits_of(clipped)
    to_integers(graph, {"product_q"}, {"features": within(0.5)}, known_scales=True)
    assert "Add" not in {node.op_type for node in graph.graph.node}
    assert np.abs(logits_of(graph) - want).max() < 0.05 * np.abs(want).max()


def test_weights_that_two_inputs_share_are_not_smoothed(graph, tmp_path):
    graph.graph.node[5].input[1] = "q"  # as the layers of ALBERT do
    del graph.graph.initializer[3]
    onnx.save(graph, tmp_path / "model.onnx")
    quantise(tmp_path / "model.onnx", tmp_path / "tokens.onnx", "tokens", [[4, 9, 30], [7, 8]])
    model = onnx.load(tmp_path / "tokens.onnx")
    made = {name for node in model.graph.node for name in node.output}
    assert "features_sub_mul" in made  # for the other weights that read it
    assert "both_sub_mul" not in made
    assert sum(table.name == "q_int8" for table in model.graph.initializer) == 1
    want = logits_of(graph)
    assert np.abs(logits_of(model) - want).mean() < 0.2 * np.abs(want).mean()
