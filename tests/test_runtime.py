"""The runtime: order, calibration, settings, and what it says about bad input."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from intents import sessions
from intents.exported import ExportSettings, read_settings
from intents.files import sha256_of, write_json
from intents.quantising import quantise
from intents.runtime import IntentClassifier
from tests.export_fixtures import INTENTS, MAX_LENGTH, random_texts, tiny_tokenizer

pytest_plugins = ["tests.export_fixtures"]


@pytest.fixture(scope="module")
def original(exported, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    shutil.copyfile(exported("bert", "mean"), folder / "model.onnx")
    quantise(folder / "model.onnx", folder / "model-int8.onnx", "blockwise", texts=[])
    backend = tiny_tokenizer().backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(MAX_LENGTH)
    backend.save(str(folder / "tokenizer.json"))
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in folder.iterdir()}
    calibration = (2.0, {"driver_window_down": 0.6}, "no_intent", ["no_intent"])
    settings = ExportSettings(INTENTS, MAX_LENGTH, 0, *calibration, "0" * 64, files)
    write_json(folder / "classifier.json", asdict(settings))
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "onnx"))


def test_answers_keep_the_order_of_the_texts_whatever_the_batch(folder):
    classifier = IntentClassifier.load(folder, "fp32")
    texts = random_texts(50)
    one_by_one = classifier.probabilities(texts, batch_size=1)
    np.testing.assert_allclose(classifier.probabilities(texts, batch_size=7), one_by_one, atol=1e-5)
    np.testing.assert_allclose(classifier.probabilities(texts[::-1])[::-1], one_by_one, atol=1e-5)
    np.testing.assert_allclose(one_by_one.sum(1), 1, atol=1e-6)


def test_answers_are_calibrated_and_below_their_threshold_they_are_the_reject_intent(folder):
    classifier = IntentClassifier.load(folder)
    texts = random_texts(40)
    intents, confidences = classifier.predict(texts)
    scaled = classifier.logits(texts).astype(np.float64) / 2.0
    probabilities = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
    likeliest = [INTENTS[label] for label in probabilities.argmax(1)]
    unsure = [name == "driver_window_down" and p < 0.6 for name, p in zip(likeliest, probabilities.max(1), strict=True)]
    assert any(unsure)
    assert intents == ["no_intent" if doubt else name for name, doubt in zip(likeliest, unsure, strict=True)]
    np.testing.assert_allclose(confidences, probabilities.max(1), rtol=1e-5)


def test_acts_from_the_threshold_on_and_never_on_the_rejecting_intent(folder):
    classifier = IntentClassifier.load(folder)
    intents = ["driver_window_down", "driver_window_down", "air_conditioner_on", "no_intent"]
    assert classifier.acts(intents, [0.59, 0.6, 0.1, 0.99]) == [False, True, True, False]


def test_no_texts_get_no_answers(folder):
    intents, confidences = IntentClassifier.load(folder).predict([])
    assert intents == []
    assert confidences.shape == (0,)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_threads": 2},
        {"arena": False},
        {"huge_pages": False},
        {"optimisation": "none"},
        {"optimisation": "basic"},
        {"verify": True},
    ],
)
def test_settings_change_the_cost_not_the_answer(folder, settings):
    texts = random_texts(10)
    expected = IntentClassifier.load(folder, "fp32").probabilities(texts)
    np.testing.assert_allclose(
        IntentClassifier.load(folder, "fp32", **settings).probabilities(texts), expected, atol=1e-5
    )


def test_a_cached_graph_is_made_once_and_never_used_for_another_model(folder, tmp_path):
    cache = tmp_path / "cache"
    texts = random_texts(10)
    expected = IntentClassifier.load(folder, cache_dir=cache).probabilities(texts)
    (made,) = cache.iterdir()
    before = made.stat().st_mtime_ns
    np.testing.assert_array_equal(IntentClassifier.load(folder, cache_dir=cache).probabilities(texts), expected)
    assert [path.name for path in cache.iterdir()] == [made.name]
    assert made.stat().st_mtime_ns == before
    IntentClassifier.load(folder, "fp32", cache_dir=cache)
    assert len(list(cache.iterdir())) == 2


def test_a_model_of_the_same_size_and_time_is_not_answered_for_by_the_old_ones_graph(folder, tmp_path):
    old = IntentClassifier.load(folder, cache_dir=tmp_path / "cache").logits(["word1"])
    path = folder / "model-int8.onnx"
    before = path.stat()
    weights = onnx.load(path).graph.initializer
    [bias] = [onnx.numpy_helper.to_array(weight) for weight in weights if list(weight.dims) == [len(INTENTS)]]
    path.write_bytes(path.read_bytes().replace(bias.tobytes(), (bias + np.float32(1)).tobytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    settings = json.loads((folder / "classifier.json").read_text())
    settings["files"][path.name]["sha256"] = sha256_of(path)
    write_json(folder / "classifier.json", settings)
    new = IntentClassifier.load(folder, cache_dir=tmp_path / "cache").logits(["word1"])
    np.testing.assert_allclose(new, old + 1, atol=1e-5)


def test_a_damaged_cached_graph_is_made_anew(folder, tmp_path):
    expected = IntentClassifier.load(folder, cache_dir=tmp_path / "cache").logits(["word1 word2"])
    (cached,) = (tmp_path / "cache").iterdir()
    whole = cached.read_bytes()
    cached.write_bytes(whole[:1000])
    again = IntentClassifier.load(folder, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.logits(["word1 word2"]), expected)
    assert len(cached.read_bytes()) == len(whole)


def test_threads_may_make_the_same_cached_graph_at_once(folder, tmp_path, monkeypatch):
    real, together = sessions._session, threading.Barrier(2, timeout=60)

    def session(*arguments):
        made = real(*arguments)
        together.wait()
        return made

    monkeypatch.setattr(sessions, "_session", session)
    with ThreadPoolExecutor(2) as threads:
        loading = [threads.submit(IntentClassifier.load, folder, cache_dir=tmp_path / "cache") for _ in range(2)]
        first, second = (one.result().logits(["word1"]) for one in loading)
    np.testing.assert_array_equal(first, second)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".onnx"]


def test_a_disk_without_room_for_the_cached_graph_is_no_damage_and_keeps_no_part_of_it(folder, tmp_path):
    import resource

    cache = tmp_path / "cache"
    expected = IntentClassifier.load(folder).logits(["word1"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # bytes of a file; Python ignores the signal
    try:
        classifier = IntentClassifier.load(folder, cache_dir=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    np.testing.assert_array_equal(classifier.logits(["word1"]), expected)
    assert list(cache.iterdir()) == []


def test_blanks_around_a_text_reach_no_tokenizer(folder):
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")  # to which each blank is a token
    assert tokenizer.encode(" word1 word2\n").ids != tokenizer.encode("word1 word2").ids
    tokenizer.save(str(path))
    settings = read_settings(folder)
    note = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    write_json(folder / "classifier.json", asdict(settings) | {"files": {**settings.files, path.name: note}})
    classifier = IntentClassifier.load(folder)
    plain, other = classifier.logits(["word1 word2"]), classifier.logits(["word1  word2"])
    np.testing.assert_array_equal(classifier.logits([" word1 word2\n"]), plain)
    assert not np.array_equal(other, plain)


def test_texts_may_come_one_by_one_and_a_batch_needs_one(folder):
    classifier = IntentClassifier.load(folder)
    texts = random_texts(3)
    np.testing.assert_array_equal(classifier.logits(text for text in texts), classifier.logits(texts))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got -1"):
        classifier.predict(texts, batch_size=-1)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("roll down", r"must be a list of texts; for one text pass \['roll down'\]"),
        (["fine", " \n"], r"texts\[1\] is empty"),
        (["fine", None], r"texts\[1\] must be a text, got NoneType None"),
        ([b"bytes"], r"texts\[0\] must be a text, got bytes"),
        (["fine", "a\ud800b"], r"texts\[1\] holds half a character"),
    ],
)
def test_rejects_what_is_no_text_and_says_which(folder, texts, message):
    with pytest.raises(ValueError, match=message):
        IntentClassifier.load(folder).predict(texts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "int4"}, "variant must be one of fp32, int8, got 'int4'"),
        ({"num_threads": 0}, "num_threads must be at least 1, got 0"),
        ({"optimisation": "much"}, "optimisation must be one of none, basic, extended, all, got 'much'"),
    ],
)
def test_rejects_a_setting_and_names_the_valid_ones(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        IntentClassifier.load(folder, **settings)


def test_a_missing_folder_or_file_is_named_with_the_remedy(folder, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere holds no exported classifier .* run `dvc repro export`"):
        IntentClassifier.load(tmp_path / "nowhere")
    (folder / "model-int8.onnx").unlink()
    with pytest.raises(ValueError, match=r"model-int8.onnx is missing: run"):
        IntentClassifier.load(folder)
    IntentClassifier.load(folder, "fp32")


def test_a_file_cut_short_is_damaged(folder):
    for name in ("model-int8.onnx", "tokenizer.json"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-10])
        with pytest.raises(ValueError, match=rf"{name} is damaged \(it has {len(whole) - 10} bytes"):
            IntentClassifier.load(folder)
        path.write_bytes(whole)


def test_one_changed_byte_is_found_when_asked(folder):
    path = folder / "model-int8.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its SHA-256 is not the one noted"):
        IntentClassifier.load(folder, verify=True)


def test_garbage_of_the_right_size_is_damaged(folder):
    for name in ("model-int8.onnx", "tokenizer.json"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(b"\xff" * len(whole))
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            IntentClassifier.load(folder)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"thresholds": {"driver_window_up": 0.6}}, "names driver_window_up, unknown to the classifier; it has: air_"),
        ({"thresholds": {"no_intent": "0.6"}}, "the threshold of no_intent must be a number from 0 on, got '0.6'"),
        ({"thresholds": {"no_intent": float("nan")}}, "the threshold of no_intent must .* got nan"),
        ({"thresholds": None}, "thresholds cannot be None"),
        ({"reject": "nothing"}, "names nothing, unknown to the classifier; it has: air_"),
        ({"no_action": ["nothing"]}, "names nothing, unknown to the classifier; it has: air_"),
        ({"temperature": 0}, "temperature must be a positive number, got 0"),
        ({"temperature": -1.5}, "temperature must be a positive number, got -1.5"),
        ({"temperature": float("nan")}, "temperature must be a positive number, got nan"),
        ({"temperature": "1"}, "temperature cannot be '1'"),
        ({"temperature": True}, "temperature cannot be True"),
        ({"intents": []}, r"intents must be names, got \[\]"),
        ({"intents": ["a"] * 5, "thresholds": {}, "reject": "a", "no_action": []}, "two intents have the same name"),
        ({"max_length": 0}, "max_length must be from 1 on, and pad_token_id from 0 on"),
        ({"pad_token_id": -1}, "max_length must be from 1 on, and pad_token_id from 0 on"),
        ({"files": None}, "files cannot be None"),
        ({"files": {"model.onnx": {"bytes": 1}}}, "files must note bytes and sha256 of model.onnx"),
    ],
)
def test_settings_that_do_not_fit_are_damaged(tmp_path, original, changed, message):
    settings = json.loads((original / "classifier.json").read_text())
    write_json(tmp_path / "classifier.json", settings | changed)
    with pytest.raises(ValueError, match=rf"classifier.json is damaged \({message}"):
        read_settings(tmp_path)


@pytest.mark.parametrize("changed", [{"intents": ["extra"]}, {"pad_token_id": 10**7}])
def test_settings_that_do_not_fit_the_model_are_damaged(folder, changed):
    settings = json.loads((folder / "classifier.json").read_text())
    write_json(
        folder / "classifier.json", {**settings, **changed, "intents": settings["intents"] + changed.get("intents", [])}
    )
    with pytest.raises(
        ValueError, match=r"classifier.json is damaged \(it names \d intents and the token \d+; the model"
    ):
        IntentClassifier.load(folder)


def test_a_calibration_that_abstains_fits_every_classifier(tmp_path, original):
    settings = json.loads((original / "classifier.json").read_text())
    write_json(tmp_path / "classifier.json", settings | {"reject": "abstain", "temperature": 2, "no_action": []})
    assert read_settings(tmp_path).reject == "abstain"


def test_settings_of_another_program_are_damaged(folder):
    for content in ("{", "[]", json.dumps({"intents": []})):
        (folder / "classifier.json").write_text(content)
        with pytest.raises(ValueError, match="classifier.json is damaged"):
            IntentClassifier.load(folder)
