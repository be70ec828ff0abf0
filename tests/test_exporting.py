"""Every architecture of the ready settings goes through the export and answers as before."""

from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch

from intents.calibrations import Calibration
from intents.exporting import export_onnx
from intents.gate import compare, failures
from intents.quantising import RECIPES, quantise
from tests.export_fixtures import tiny_classifier

pytest_plugins = ["tests.export_fixtures"]
VOCABULARY = 294
# Every architecture and every head; of the heads of ours, those that other tests export, too.
KINDS = [
    *((architecture, "native") for architecture in ("bert", "electra", "deberta", "deberta-v2", "modernbert")),
    ("bert", "mean"),
    ("roberta", "mean"),
    ("modernbert", "first"),
]


compare_plainly = partial(compare, intents=["a", "b", "c"], calibration=Calibration())


def padded_batch(model, num_texts, length, seed):
    """Return ids and mask of texts of differing length; every second one is padded from its middle on."""
    generator = np.random.default_rng(seed)
    encoder = getattr(model.config, "encoder", model.config)
    ids = generator.integers(4, VOCABULARY, (num_texts, length))
    mask = np.ones_like(ids)
    mask[1::2, (length + 1) // 2 :] = 0
    ids[mask == 0] = encoder.pad_token_id
    return {"input_ids": ids, "attention_mask": mask}


def texts_of(batch):
    return [ids[mask == 1].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def expected(model, batch):
    with torch.inference_mode():
        return model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits.numpy()


def answer(path, batch):
    return onnxruntime.InferenceSession(path).run(None, batch)[0]


@pytest.mark.parametrize(("architecture", "head"), KINDS)
def test_onnx_answers_as_pytorch_at_any_batch_and_length_and_int8_passes_the_gate(
    exported, tmp_path, architecture, head
):
    model, path = tiny_classifier(architecture, head), exported(architecture, head)
    for num_texts, length in ((1, 1), (1, 9), (3, 5), (2, 40), (5, 64)):
        batch = padded_batch(model, num_texts, length, seed=length)
        want = expected(model, batch)
        np.testing.assert_allclose(
            answer(path, batch), want, atol=1e-4, err_msg=f"{num_texts} texts of {length} tokens"
        )
        # The answers do depend on the tokens and on the padding: agreeing on constants would prove nothing.
        other = padded_batch(model, num_texts, length, seed=length + 1)
        assert np.abs(expected(model, other) - want).max() > 1e-2
    batch = padded_batch(model, 300, 20, seed=7)
    want = expected(model, batch)
    # A random classifier prefers one intent and is torn on most texts, a trained one is not: level the intents, and
    # keep the texts that it has made its mind up about.
    level = want.mean(0)
    want = want - level
    two_best = np.sort(want, axis=1)[:, -2:]
    sure = np.argsort(two_best[:, 0] - two_best[:, 1])[:150]
    batch, want = {name: values[sure] for name, values in batch.items()}, want[sure]
    assert len(set(want.argmax(1))) > 1
    problems = []
    for recipe in RECIPES:  # the first that passes is taken, as the stage does
        quantise(path, tmp_path / f"{recipe}.onnx", recipe, texts_of(batch))
        found = compare_plainly(want.argmax(1), want, [answer(tmp_path / f"{recipe}.onnx", batch) - level])
        reasons = failures(found, 1.0, min_agreement=0.995, max_accuracy_drop=0.5)
        if not reasons:
            return
        problems.append((recipe, found, reasons))
    raise AssertionError(problems)


def test_recipes_store_faithful_integers_and_are_smaller_than_the_original(exported, tmp_path):
    model, path = tiny_classifier("bert", "mean"), exported("bert", "mean")
    batch = padded_batch(model, 200, 24, seed=3)
    want = expected(model, batch)
    differences = {}
    for recipe in RECIPES:
        quantise(path, tmp_path / f"{recipe}.onnx", recipe, texts_of(batch))
        differences[recipe] = np.abs(answer(tmp_path / f"{recipe}.onnx", batch) - want).mean()
    assert 0 < differences["tokens"] < differences["static"]
    assert max(differences.values()) < 0.05 * np.abs(want).mean()
    assert (tmp_path / "static.onnx").stat().st_size < 0.6 * path.stat().st_size


@pytest.mark.parametrize("recipe", ["static", "tokens"])
@pytest.mark.parametrize(("architecture", "head"), [("bert", "mean"), ("modernbert", "first")])
def test_an_int8_answer_does_not_depend_on_the_texts_beside_it(exported, tmp_path, architecture, head, recipe):
    model = tiny_classifier(architecture, head)
    batch = padded_batch(model, 40, 24, seed=5)
    quantise(exported(architecture, head), tmp_path / "int8.onnx", recipe, texts_of(batch))
    together = answer(tmp_path / "int8.onnx", batch)
    alone = [
        answer(tmp_path / "int8.onnx", {"input_ids": np.array([text]), "attention_mask": np.ones((1, len(text)), int)})
        for text in texts_of(batch)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)


def test_a_classifier_too_large_for_an_onnx_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("intents.exporting._LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="the classifier's weights take .* GB in fp32, an ONNX file holds 2 GB"):
        export_onnx(tiny_classifier("bert", "mean"), tmp_path / "model.onnx")


def test_a_logit_that_is_not_a_number_fails_the_gate():
    want = np.eye(2, dtype=np.float32)
    found = compare_plainly(np.array([0, 1]), want, [np.array([[1, 0], [np.nan, 1]], dtype=np.float32)])
    assert failures(found, 1.0, min_agreement=0, max_accuracy_drop=100, max_logit_difference=1e-3)


def test_the_worst_of_several_ways_to_answer_counts():
    want = np.eye(2, dtype=np.float32)
    found = compare_plainly(np.array([0, 1]), want, [want, want[::-1]])
    assert found == {
        "accuracy": 0.0,
        "agreement": 0.0,
        "answer_agreement": 0.0,
        "logit_difference": 1.0,
        "false_actions": 0,
    }


def test_an_answer_that_crosses_its_threshold_fails_the_gate_though_the_likeliest_intent_stays():
    want = np.array([[2.0, 0.0], [0.0, 2.0]], dtype=np.float32)  # 88 % sure; with temperature 0.5, 98 %
    found = [np.array([[1.8, 0.0], [0.0, 2.0]], dtype=np.float32)]  # 97 %
    calibration = Calibration(0.5, {"act": 0.975}, "rest", ("rest",))
    compared = compare(np.array([0, 1]), want, found, intents=["act", "rest"], calibration=calibration)
    assert (compared["agreement"], compared["answer_agreement"]) == (1.0, 0.5)
    [problem] = failures(compared, 1.0, min_agreement=0.995, max_accuracy_drop=0.5)
    assert "its answer, thresholds applied, is PyTorch's on 50.000% of the validation texts" in problem
    assert "export.min_agreement is 99.500%" in problem


def test_texts_that_ask_for_nothing_and_would_be_acted_on_are_counted():
    calibration = Calibration(1.0, {"act": 0.6}, "rest", ("rest",))
    unsure, sure = (np.log([[share, 1 - share]] * 2).astype(np.float32) for share in (0.55, 0.7))
    count = partial(compare, np.array([0, 1]), unsure, intents=["act", "rest"], calibration=calibration)
    assert count([unsure])["false_actions"] == 0
    assert count([unsure, sure])["false_actions"] == 1  # by the worst way; the other text does ask for it


def test_the_gate_rounds_nothing_up():
    want = np.tile(np.eye(2, dtype=np.float32)[:1], (2183, 1))
    other = want.copy()
    other[:11] = [0, 1]
    found = compare_plainly(np.zeros(2183, dtype=np.int64), want, [other])
    assert round(found["agreement"], 4) == 0.995
    assert len(failures(found, 1.0, min_agreement=0.995, max_accuracy_drop=5)) == 2


def test_an_accuracy_that_falls_further_than_allowed_fails_the_gate():
    found = {"accuracy": 0.90, "agreement": 1.0, "answer_agreement": 1.0, "logit_difference": 0.0}
    assert failures(found, 0.91, min_agreement=0.0, max_accuracy_drop=1.0) == []
    [problem] = failures(found, 0.92, min_agreement=0.0, max_accuracy_drop=1.0)
    assert problem == "accuracy falls from 92.00% to 90.00%, by 2.00 points, export.max_accuracy_drop is 1.0"
