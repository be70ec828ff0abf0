"""What every row is answered: the same in every format, calibrated, by the classifier asked for."""

import csv
import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from intents.bulk.loading import load_scorer
from intents.bulk.scoring import budget_batches
from intents.bulk.torch_scoring import TorchScorer
from intents.calibrations import Calibration
from intents.deciding import decide
from tests.conftest import WITHOUT_USERS_SETTINGS
from tests.predict_fixtures import (
    INTENTS,
    answer,
    classifier,  # noqa: F401
    exported,  # noqa: F401
    make_classifier,
    read_jsonl,
    texts_of,
    write_jsonl,
)


def one_by_one(folder, texts):
    """Return (intents, confidences), each text scored alone by transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt", truncation=True)).logits[0] for text in texts]
    probabilities = [torch.softmax(row, 0) for row in logits]
    return [INTENTS[int(row.argmax())] for row in probabilities], [float(row.max()) for row in probabilities]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_every_row_gets_the_answer_that_it_gets_alone_in_every_format(classifier, tmp_path, suffix):  # noqa: F811
    texts = texts_of(150)
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    rows = [{"id": f"r{number}", "text": text, "note": 'a,\t"b"'} for number, text in enumerate(texts)]
    if suffix == "jsonl":
        write_jsonl(source, rows)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        opener = gzip.open if suffix.endswith("gz") else open
        with opener(source, "wt", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text", "note"], delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)

    answer(source, target, "--model", classifier)

    if suffix == "jsonl":
        answers = read_jsonl(target)
    elif suffix == "parquet":
        answers = pq.read_table(target).to_pylist()
    else:
        opener = gzip.open if suffix.endswith("gz") else open
        with opener(target, "rt", encoding="utf-8", newline="") as file:
            answers = list(csv.DictReader(file, delimiter="\t" if suffix == "tsv" else ","))
    intents, confidences = one_by_one(classifier, texts)
    assert len(set(intents)) > 1
    assert [{name: row[name] for name in ("id", "text", "note")} for row in answers] == rows
    assert [row["intent"] for row in answers] == intents
    np.testing.assert_allclose([float(row["confidence"]) for row in answers], confidences, atol=2e-6)
    assert {row["reason"] for row in answers} == {""}


def test_probabilities_sum_to_one_and_the_confidence_is_the_largest(classifier, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_of(30)])
    answer(tmp_path / "in.jsonl", tmp_path / "out.parquet", "--model", classifier, "--probabilities")
    for row in pq.read_table(tmp_path / "out.parquet").to_pylist():
        probabilities = {intent: row[f"probability_{intent}"] for intent in INTENTS}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert max(probabilities, key=probabilities.get) == row["intent"]
        assert max(probabilities.values()) == row["confidence"]


def test_batches_hold_every_text_once_within_the_budget_shortest_first():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 64, size=1000).tolist()
    batches = list(budget_batches(lengths, 256))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 256 for batch in batches)
    assert [lengths[index] for index in np.concatenate(batches)] == sorted(lengths)
    assert [batch.tolist() for batch in budget_batches([300, 2], 256)] == [[1], [0]]
    assert list(budget_batches([], 256)) == []


def test_answers_below_their_threshold_become_the_reject_intent():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    intents, confidences = decide(probabilities, ["act", "none"], Calibration(thresholds={"act": 0.7}, reject="none"))
    assert intents == ["none", "act", "none"]
    np.testing.assert_allclose(confidences, [0.6, 0.9, 0.8])
    assert decide(probabilities, ["act", "none"], Calibration(thresholds={"act": 0.7}))[0] == ["act", "act", "none"]


def test_the_calibration_beside_a_checkpoint_is_applied(tmp_path):
    folder = make_classifier(tmp_path)
    texts = texts_of(40)
    plain = TorchScorer(folder).probabilities(texts)
    calibration = {"temperature": 4.0, "thresholds": dict.fromkeys(INTENTS, 1.01), "reject": "no_intent"}
    calibration["no_action"] = ["no_intent"]
    (folder / "calibration.json").write_text(json.dumps(calibration))
    assert TorchScorer(folder).probabilities(texts).max() < plain.max()
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    answer(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", folder)
    assert {row["intent"] for row in read_jsonl(tmp_path / "out.jsonl")} == {"no_intent"}


def test_a_revision_answers_with_its_own_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in WITHOUT_USERS_SETTINGS.items():
        monkeypatch.setenv(name, value)
    environment = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    environment["GIT_COMMITTER_EMAIL"] = "a@b"

    def sh(line):
        subprocess.run(line, shell=True, check=True, env=environment, capture_output=True)

    def commit(seed):
        sh("rm -rf models")
        make_classifier(Path("scratch") / str(seed), seed)
        Path("models").mkdir()
        Path(f"scratch/{seed}/classifier").rename("models/classifier")
        sh("python -m dvc add -q models/classifier && git add -A")
        sh(f"git commit -qm {seed} && git tag v{seed}")

    sh("git init -q && python -m dvc init -q && echo /scratch > .gitignore")
    commit(1)
    commit(2)
    write_jsonl(tmp_path / "scratch/in.jsonl", [{"text": text} for text in texts_of(40)])
    answer("scratch/in.jsonl", "scratch/tag.jsonl", "--rev", "v1")
    answer("scratch/in.jsonl", "scratch/here.jsonl")
    answer("scratch/in.jsonl", "scratch/named.jsonl", "--rev", "v2", "--model", "models/classifier")
    tag, here, named = (Path(f"scratch/{name}.jsonl").read_text() for name in ("tag", "here", "named"))
    assert tag != here == named
    with pytest.raises(ValueError, match="no branch, tag, commit or experiment is called 'v9'"):
        answer("scratch/in.jsonl", "scratch/x.jsonl", "--rev", "v9")
    for model in (Path("models/classifier").resolve(), "models/../models/classifier"):
        with pytest.raises(ValueError, match="is no path of revision 'v1'; valid are paths relative to the repository"):
            answer("scratch/in.jsonl", "scratch/x.jsonl", "--rev", "v1", "--model", model)
    shutil.copytree("models/classifier", "models/onnx")
    sh("python -m dvc add -q models/onnx && git add -A && git commit -qm 3 && git tag v3")
    sh("rm -rf .dvc/cache")
    with pytest.raises(ValueError, match="'v3' has no models/onnx in the DVC cache or its remote"):
        answer("scratch/in.jsonl", "scratch/x.jsonl", "--rev", "v3")


def test_a_checkpoint_without_thresholds_is_said_and_an_exported_classifier_has_them_inside(
    classifier,  # noqa: F811
    exported,  # noqa: F811
    tmp_path,
    capsys,
):
    (tmp_path / "in.csv").write_text("text\non\n")
    answer(tmp_path / "in.csv", tmp_path / "plain.csv", "--model", classifier)
    assert "has no calibration.json: no threshold holds an answer back" in capsys.readouterr().err
    answer(tmp_path / "in.csv", tmp_path / "out.csv", "--model", exported, "--variant", "fp32")
    assert "calibration" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_checkpoint_without_its_tokenizer_answers_nothing(classifier, tmp_path, name):  # noqa: F811
    folder = Path(shutil.copytree(classifier, tmp_path / "copy"))
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"copy has no {name}: copy it anew, or `dvc pull "):
        load_scorer(folder)


def test_a_checkpoint_with_a_damaged_tokenizer_names_the_folder(classifier, tmp_path):  # noqa: F811
    folder = Path(shutil.copytree(classifier, tmp_path / "copy"))
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:100])
    with pytest.raises(ValueError, match="copy: its tokenizer is damaged"):
        load_scorer(folder)


def test_a_file_in_place_of_a_folder_is_named(classifier):  # noqa: F811
    with pytest.raises(ValueError, match=r"config.json is a file; name the folder that holds the classifier"):
        load_scorer(classifier / "config.json")
