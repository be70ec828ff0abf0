"""The model card: front matter that the Hub takes, numbers of the run, snippets that run."""

import hashlib
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from apps.release import release
from intents.calibrations import Calibration, write_calibration
from intents.card import render_card
from intents.exported import ExportSettings
from intents.files import write_json

TEST = {
    "accuracy": 0.9,
    "macro_f1": 0.8,
    "log_loss": 0.3,
    "ece": 0.04,
    "commands_obeyed": 0.7,
    "commands_obeyed_interval": [0.6, 0.8],
    "false_action_rate": 0.01,
    "false_action_interval": [0.0, 0.05],
    "examples": 20,
    "accuracy_interval": [0.7, 0.98],
    "macro_f1_interval": [0.6, 0.95],
}
SPLITS = [{"name": name, "rows": 10, "sha256": name[0] * 64} for name in ("train", "validation", "test")]


def facts(**changed):
    return {
        "intents": ["go", "stop"],
        "parameters": 22_000_000,
        "splits": SPLITS,
        "unlabelled": None,
        "rows_per_intent": [{"intent": "go", "train": 5, "validation": 5, "test": 5}],
        "test": TEST,
        "confidence_level": 0.95,
        "validation": {"accuracy": 0.91, "macro_f1": 0.81, "log_loss": 0.31},
        "per_kind": [{"kind": "typo", "accuracy": "0.5", "low": "0.1", "high": "0.9", "support": "4"}],
        "per_intent": [{"intent": "go", "precision": "0.7", "recall": "0.6", "f1": "0.65", "support": "5"}],
        "calibration": Calibration(1.0, {}, None),
        "thresholds_count": False,
        "max_length": 64,
        "checkpoint_sha256": "c" * 64,
        "best": {"epoch": 8.0, "step": 576},
        "precision": "bf16",
        "settings": "train:\n  seed: 0\n",
        "example": "go on",
    } | changed


def render(source="bundled/all-MiniLM-L6-v2", revision=None, **changed):
    encoder = {"source": source, "revision": revision}
    return render_card("Drive", "apache-2.0", ["en"], encoder, "drives", facts(**changed))


def test_front_matter_is_read_back_by_the_hubs_own_library():
    data = ModelCard(render()).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert (data.license, data.language, data.pipeline_tag) == ("apache-2.0", ["en"], "text-classification")
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "accuracy": 0.9,
        "f1": 0.8,
    }
    assert {result.dataset_name for result in data.eval_results} == {"drives"}


def test_base_model_is_the_hub_id_and_none_for_a_local_folder():
    assert ModelCard(render("bert-base-uncased", "a" * 40)).data.base_model == "bert-base-uncased"
    assert ModelCard(render("../encoders/ours")).data.base_model is None


def test_page_has_hashes_intervals_kinds_and_settings():
    page = render()
    for piece in (
        "| train | `" + "t" * 64 + "` | 10 |",
        "| accuracy | 0.9 | 0.7 to 0.98 |",
        "| typo | 0.5 |",
        "seed: 0",
    ):
        assert piece in page
    assert "Plain softmax" in page
    assert "unlabelled" not in page


def test_page_says_how_many_unlabelled_texts_were_learnt_from():
    before = {"accuracy": 0.87, "macro_f1": 0.77, "log_loss": 0.37}
    page = render(unlabelled={"rows": 9, "learnt": 7, "sha256": "u" * 64, "before": before})
    assert "| test | `" + "t" * 64 + "` | 10 |\n| unlabelled | `" + "u" * 64 + "` | 9 |\n\nA first training" in page
    assert "the second learnt from 7 of them" in page
    assert "the first had accuracy 0.87, macro-F1 0.77, log-loss 0.37" in page


def test_thresholds_are_shown_where_there_is_a_calibration():
    page = render(calibration=Calibration(1.7, {"go": 0.6}, "stop", ("stop",)))
    assert "judge the likeliest intent, thresholds (below) aside" in page
    assert "temperature 1.7" in page
    assert "| go | 0.6 |" in page and "becomes `stop`" in page
    assert "| acted on, of the texts that ask for nothing | 0.01 | 0.0 to 0.05 |" in page
    assert "Plain softmax" not in page


def test_tables_are_whole():
    table = None
    for line in render().splitlines():
        columns = line.count("|") if line.startswith("|") else None
        assert columns is None or table is None or columns == table, line
        table = columns


@pytest.mark.parametrize("name", ["<b>x</b>", "[x](y)", "c*d*", "`a`", "back\\slash"])
def test_a_name_that_looks_like_markdown_is_that_name(name):
    shown = re.sub(r"([\\`*<\[|])", r"\\\1", name)
    assert f"| {shown} |" in render(per_kind=[facts()["per_kind"][0] | {"kind": name}])


def test_a_bar_in_a_name_does_not_end_its_cell():
    assert r"| a\|b | 0.6 |" in render(calibration=Calibration(1.7, {"a|b": 0.6}, "stop", ("stop",)))


def test_an_example_with_quotes_leaves_the_snippets_valid_python():
    snippets = re.findall(r"```python\n(.*?)```", render(example='say "go"'), re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:
        compile(snippet, "card", "exec")


def test_release_names_the_parts_that_are_missing(tmp_path):
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "apps.release", "out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "models/classifier, models/onnx, metrics/export.json missing: run `dvc repro`" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_example_with_an_emoji_is_that_emoji_in_the_snippets():
    assert 'classifier("go \U0001f697", truncation=True)' in render(example="go \U0001f697")


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """What a release is made of, tiny, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("models/classifier", "models/onnx", "metrics"):
        Path(name).mkdir(parents=True)
    Path("models/classifier/model.safetensors").write_bytes(b"weights")
    write_calibration(Path("models/classifier"), Calibration(1.5, {"a": 0.6}, "a", ("a",)))
    Path("metrics/export.json").write_text("{}")
    files = {}
    for name in ("model.onnx", "model-int8.onnx", "tokenizer.json"):
        content = name.encode()
        Path("models/onnx", name).write_bytes(content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    checkpoint = hashlib.sha256(b"weights").hexdigest()
    settings = ExportSettings(["a"], 8, 0, 1.5, {"a": 0.6}, "a", ["a"], checkpoint, files)
    write_json(Path("models/onnx/classifier.json"), asdict(settings))


def test_a_release_holds_all_parts(parts):
    release(Path("out"))
    assert {path.name for path in Path("out/onnx").iterdir()} == {
        "classifier.json",
        "metrics.json",
        "model-int8.onnx",
        "model.onnx",
        "tokenizer.json",
    }
    assert Path("out/model.safetensors").read_bytes() == b"weights"


def test_a_release_of_a_copy_without_git(parts):
    Path(".dvc").mkdir()
    release(Path("out"))
    assert Path("out/model.safetensors").exists()


def test_a_release_of_two_classifiers_is_refused(parts):
    Path("models/classifier/model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match="models/onnx was exported from another classifier than models/classifier"):
        release(Path("out"))
    assert not Path("out").exists()


def test_a_release_of_two_calibrations_is_refused(parts):
    write_calibration(Path("models/classifier"), Calibration(1.5, {"a": 0.7}, "a", ("a",)))
    with pytest.raises(ValueError, match="models/onnx has another calibration than models/classifier: run `dvc repro`"):
        release(Path("out"))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "model-int8.onnx is missing"),
        (b"model", r"model-int8.onnx is damaged \(it has 5 bytes"),
        (b"\0" * len("model-int8.onnx"), r"model-int8.onnx is damaged \(its SHA-256"),
    ],
)
def test_a_release_of_a_missing_or_damaged_file_is_refused(parts, content, message):
    path = Path("models/onnx/model-int8.onnx")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        release(Path("out"))
    assert not Path("out").exists()


def test_a_release_never_replaces_a_folder(parts):
    Path("out").mkdir()
    Path("out/notes").write_text("mine")
    with pytest.raises(ValueError, match="out exists already: remove it or name another folder"):
        release(Path("out"))
    assert Path("out/notes").read_text() == "mine"
