"""The export stage, in a folder that holds only what it reads."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from intents.calibrations import Calibration, write_calibration
from intents.runtime import IntentClassifier
from stages import export
from tests.export_fixtures import (
    INTENTS,
    random_texts,
    sure_texts,
    tiny_classifier,
    write_checkpoint,
    write_validation,
)

pytest_plugins = ["tests.export_fixtures"]
ROOT = Path(__file__).parent.parent
PLAIN = Calibration()
PARAMS = {"quantisation": "auto", "min_agreement": 0.995, "max_accuracy_drop": 0.5}


def make_workspace(folder: Path, model, calibration=PLAIN, **params) -> None:
    write_checkpoint(folder / "models/trained", model)
    write_calibration(folder / "models/calibration", calibration)
    write_validation(folder, model, sure_texts(model, 200))
    folder.joinpath("params.yaml").write_text(yaml.safe_dump({"export": PARAMS | params}))


def run_python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def exported(exported, tmp_path_factory) -> Iterator[Path]:
    """Folder of a stage that has run, on the graph that other files' tests share. Never write into it."""
    folder, graph = tmp_path_factory.mktemp("first"), exported("bert", "mean")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the other process
    make_workspace(folder, tiny_classifier("bert", "mean"))
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("intents.exporting.export_onnx", lambda _, path: shutil.copyfile(graph, path))
        export.main()
    yield folder
    torch.set_num_threads(num_threads)


@pytest.fixture
def graph_at_hand(exported, monkeypatch):
    """Let the stage take the graph of `exported` in place of exporting the same classifier again."""
    graph = exported / "models/onnx/model.onnx"
    monkeypatch.setattr("intents.exporting.export_onnx", lambda _, path: shutil.copyfile(graph, path))


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "models/onnx").iterdir()}


def test_the_same_classifier_gives_the_same_bytes_in_another_folder_and_process(exported, tmp_path):
    for name in ("models/trained", "models/calibration", "data", "params.yaml"):
        source = exported / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(source, tmp_path / name)
    run_python(tmp_path, "-m", "stages.export", PYTHONHASHSEED="7")
    assert hashes(tmp_path) == hashes(exported)
    assert set(hashes(exported)) == {"model.onnx", "model-int8.onnx", "tokenizer.json", "classifier.json"}
    assert (tmp_path / "metrics/export.json").read_bytes() == (exported / "metrics/export.json").read_bytes()


def test_no_path_of_the_exporting_machine_is_in_the_files(exported):
    for path in (exported / "models/onnx").iterdir():
        content = path.read_bytes()
        for trace in (str(ROOT), str(exported), "site-packages", ".py"):
            assert trace.encode() not in content, (path.name, trace)


def test_metrics_name_sizes_agreement_and_accuracy_of_each_variant(exported):
    metrics = json.loads((exported / "metrics/export.json").read_text())
    assert metrics["accuracy"]["pytorch"] == metrics["accuracy"]["fp32"] == 1.0
    assert metrics["agreement"]["fp32"] == 1.0
    assert metrics["agreement"]["int8"] >= PARAMS["min_agreement"]
    assert metrics["answer_agreement"]["fp32"] == 1.0
    assert set(metrics["false_actions"]) == {"pytorch", "fp32", "int8"}
    assert set(metrics["size_mb"]) == {"fp32", "int8"}
    assert metrics["tried"][-1]["quantisation"] == metrics["quantisation"]


def test_settings_hold_intents_max_length_and_the_checkpoints_hash(exported):
    settings = json.loads((exported / "models/onnx/classifier.json").read_text())
    weights = exported / "models/trained/model.safetensors"
    assert settings["intents"] == INTENTS
    assert settings["max_length"] == 24
    assert (settings["temperature"], settings["thresholds"], settings["reject"]) == (1.0, {}, None)
    assert settings["checkpoint_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.usefixtures("graph_at_hand")
def test_the_gate_fails_with_the_numbers_and_leaves_no_output(tmp_path, monkeypatch):
    model = tiny_classifier("bert", "mean")
    make_workspace(tmp_path, model, min_agreement=1.0)
    write_validation(tmp_path, model, random_texts(200))  # a random classifier is torn on many of them
    monkeypatch.chdir(tmp_path)
    numbers = r"its likeliest intent is PyTorch's on \d\d\.\d{3}% .*export.min_agreement is 100.000%"
    with pytest.raises(ValueError, match=numbers):
        export.main()
    assert not (tmp_path / "models/onnx").exists()
    assert not (tmp_path / "metrics/export.json").exists()


@pytest.mark.usefixtures("graph_at_hand")
def test_the_gate_looks_at_the_answers_that_the_calibration_gives(exported, tmp_path, monkeypatch):
    model = tiny_classifier("bert", "mean")
    classifier = IntentClassifier.load(exported / "models/onnx", "fp32")
    _, confidences = classifier.predict(sure_texts(model, 200))
    nearest = float(np.median(confidences))  # about half of the answers are rejected, some by a hair's breadth
    calibration = Calibration(1.0, dict.fromkeys(INTENTS, nearest), "no_intent", ("no_intent",))
    make_workspace(tmp_path, model, calibration, min_agreement=1.0, quantisation="static")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"its answer, thresholds applied, is PyTorch's on \d\d\.\d{3}%") as error:
        export.main()
    assert "its likeliest intent" not in str(error.value)


@pytest.mark.usefixtures("graph_at_hand")
def test_calibration_travels_with_the_export(tmp_path, monkeypatch):
    calibration = Calibration(2.0, {"driver_window_down": 0.6}, "no_intent", ("no_intent",))
    make_workspace(tmp_path, tiny_classifier("bert", "mean"), calibration, min_agreement=0.9)
    monkeypatch.chdir(tmp_path)
    export.main()
    settings = json.loads(Path("models/onnx/classifier.json").read_text())
    found = {name: settings[name] for name in ("temperature", "thresholds", "reject", "no_action")}
    assert found == {
        "temperature": 2.0,
        "thresholds": {"driver_window_down": 0.6},
        "reject": "no_intent",
        "no_action": ["no_intent"],
    }


def test_runtime_answers_as_the_checkpoint_does_and_needs_three_packages_alone(exported):
    texts = random_texts(20, seed=1)
    script = f"""
import json, sys
from importlib.metadata import packages_distributions
before = set(sys.modules)
from intents.runtime import IntentClassifier
classifier = IntentClassifier.load("models/onnx", variant="fp32")
intents, confidences = classifier.predict({texts!r})
packages = {{name.split(".")[0] for name in set(sys.modules) - before}}
known = packages_distributions()
loaded = {{name.lower() for package in packages for name in known.get(package, [])}}
print(json.dumps([intents, confidences.tolist(), sorted(loaded)]))
"""
    done = run_python(exported, "-c", script)
    intents, confidences, loaded = json.loads(done.stdout)
    assert set(loaded) - {"driver-intents"} == {"numpy", "tokenizers", "onnxruntime"}

    import transformers

    transformers.utils.logging.disable_progress_bar()
    pipeline = transformers.pipeline("text-classification", model=str(exported / "models/trained"), device="cpu")
    expected = [pipeline(text, truncation=True)[0] for text in texts]
    assert intents == [answer["label"] for answer in expected]
    np.testing.assert_allclose(confidences, [answer["score"] for answer in expected], atol=1e-4)
