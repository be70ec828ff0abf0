"""The pipeline on data of other people: no intent that stands for doing nothing, or texts that are out of scope."""

import csv
import importlib
import json
import random
import re
import shutil
from collections import Counter
from contextlib import chdir
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from apps.demo.showcase import confusion_of
from intents.tables import intents_of
from stages import calibrate, card, evaluate
from tests.conftest import REPOSITORY
from tests.predict_fixtures import answer

pytestmark = pytest.mark.filterwarnings("default")
STAGES = ("encoder", "prepare", "tokenize", "train", "calibrate", "baselines", "evaluate", "card")
SAID = {"door": "open close door", "light": "light on off", "music": "music seat cold", "0": "it is now"}
NOISE = "a b c please my the turn warm".split()


def write(path: Path, intents: list[str], rows_of_each: int = 40) -> None:
    drawn = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "queue"])
        for intent in intents:
            for _ in range(rows_of_each):
                words = [drawn.choice(SAID[intent].split()), *drawn.choices(NOISE, k=5)]
                writer.writerow([" ".join(drawn.sample(words, len(words))), intent])


def run_pipeline(folder: Path, encoder_dir: Path, source: str, **settings: dict) -> Path:
    """Run all stages but the export in `folder`, in this process: DVC has tests of its own."""
    write(folder / "tickets.csv", ["door", "light", "music"])
    write(folder / "scoped.csv", ["door", "light", "music", "0"])
    shutil.copytree(REPOSITORY / "data/behaviour", folder / "data/behaviour")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    own = {"source": source, "text_column": "body", "intent_column": "queue", "exclude_intents": []}
    for section, changes in {
        "encoder": {"name": str(encoder_dir)},
        "prepare": {**own, "near_duplicate_threshold": 1.0},
        "tokenize": {"max_length": 32},
        # A random encoder's first token learns slowly.
        "train": {"head": "mean", "num_epochs": 4, "min_steps": 0, "precision": "fp32"},
        "tracking": {"report_to": "none"},
        "runtime": {"checkpoint_every": 0},
        "calibrate": {},
    }.items():
        params[section] |= changes | settings.get(section, {})
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    with chdir(folder):
        for stage in STAGES:
            importlib.import_module(f"stages.{stage}").main()
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_encoder):
    """A run on data without an intent to reject with, by the settings that README names. Never write into it."""
    return run_pipeline(tmp_path_factory.mktemp("own"), tiny_encoder, "tickets.csv")


def calibration_of(folder: Path) -> dict:
    return json.loads((folder / "models/calibration/calibration.json").read_text())


def predictions_of(folder: Path) -> list[dict]:
    return pq.read_table(folder / "data/predictions/test.parquet").to_pylist()


def test_without_an_intent_to_reject_with_every_text_is_answered(finished):
    calibration = calibration_of(finished)
    assert (calibration["thresholds"], calibration["reject"], calibration["no_action"]) == ({}, "abstain", [])
    assert {row["predicted"] for row in predictions_of(finished)} <= {"door", "light", "music"}
    test = json.loads((finished / "metrics/evaluate.json").read_text())["test"]
    assert "false_action_rate" not in test and test["coverage"] == 1.0


def test_behavioural_pairs_about_other_intents_are_left_out_and_the_ladder_stands(finished):
    metrics = json.loads((finished / "metrics/evaluate.json").read_text())
    num_pairs = len((finished / "data/behaviour/pairs.csv").read_text().splitlines()) - 1
    assert metrics["test"]["behaviour_pairs"] == [{"asked": 0, "left_out": num_pairs, "passed": {}}]
    assert "behaviour_passed" not in metrics["test"]
    page = (finished / "metrics/report.html").read_text()
    assert "<h2>Behaviour</h2>" not in page and "<h2>Ladder</h2>" in page
    assert list(metrics["ladder"]) == ["majority", "tfidf", "frozen_encoder", "fine_tuned"]
    assert metrics["ladder"]["tfidf"] > metrics["ladder"]["majority"]


def test_thresholds_can_make_it_abstain_and_every_reader_follows(finished, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    usual = Counter(row["predicted"] for row in predictions_of(folder)).most_common(1)[0][0]
    calibration = calibration_of(folder) | {"thresholds": {usual: 1.01}}
    (folder / "models/calibration/calibration.json").write_text(json.dumps(calibration))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["evaluate"]["num_mistakes"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    evaluate.main()
    found = predictions_of(folder)
    answer_to = {usual: "abstain"}
    assert all(row["answer"] == answer_to.get(row["predicted"], row["predicted"]) for row in found)
    assert "abstain" in {row["answer"] for row in found}
    assert {row["predicted"] for row in found} <= {"door", "light", "music"}
    matrix = confusion_of(folder / "data/predictions/test.parquet")
    assert sum(map(sum, matrix.counts)) == len(found)
    test = json.loads((folder / "metrics/evaluate.json").read_text())["test"]
    assert test["coverage"] == pytest.approx(sum(row["answer"] != "abstain" for row in found) / len(found), abs=1e-4)
    with (folder / "metrics/tables/per_intent.csv").open(encoding="utf-8", newline="") as file:
        recall = {row["intent"]: float(row["recall"]) for row in csv.DictReader(file)}  # of the likeliest intents
    right = [row["predicted"] == usual for row in found if row["intent"] == usual]
    assert recall[usual] == pytest.approx(sum(right) / len(right), abs=1e-4) and recall[usual] > 0
    page = (folder / "metrics/report.html").read_text()
    wrong = [row["text"] for row in found if row["predicted"] != row["intent"]]
    assert len(wrong) > 1 and sum(text in page for text in wrong) == 1  # num_mistakes
    card.main()
    (folder / "in.csv").write_text("text\n" + "\n".join(row["text"] for row in found) + "\n")
    answer("in.csv", "out.csv", "--model", "models/classifier")
    assert "abstain" in (folder / "out.csv").read_text()


def test_out_of_scope_texts_set_the_threshold_without_being_trained_on(tmp_path, tiny_encoder, monkeypatch):
    scope = {"out_of_scope_intent": 0, "out_of_scope_use": "threshold"}  # some data numbers its intents
    limit = {"max_false_action_rate": 0.2}
    long = {"num_epochs": 12}
    folder = run_pipeline(tmp_path, tiny_encoder, "scoped.csv", prepare=scope, calibrate=limit, train=long)
    train = pq.read_table(folder / "data/prepared/train.parquet").column("intent").to_pylist()
    assert "0" not in train and intents_of(folder / "data/prepared/train.parquet")[0] == "0"
    calibration = calibration_of(folder)
    assert (calibration["reject"], calibration["no_action"]) == ("0", ["0"])
    assert set(calibration["thresholds"]) == {"door", "light", "music"}  # a random third of the rows would act
    test = json.loads((folder / "metrics/evaluate.json").read_text())["test"]
    assert test["false_action_rate"] < 0.5 and test["log_loss"] < 3
    assert "0" in {row["predicted"] for row in predictions_of(folder)}
    validation = json.loads((folder / "metrics/train.json").read_text())["validation"]
    assert validation["accuracy"] > 0.4  # rows of an intent that train lacks would halve it
    claim = "to let at most 20.0 % through"
    assert claim in (folder / "metrics/report.html").read_text()
    monkeypatch.chdir(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["prepare"]["out_of_scope_use"] = "class"  # then they set no threshold, though another limit may
    params["calibrate"]["max_error_rate"] = 0.9
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    calibrate.main()
    evaluate.main()
    assert claim not in (folder / "metrics/report.html").read_text()


def test_too_few_texts_to_reject_with_say_what_they_can_show(finished, tmp_path, monkeypatch, capsys):
    """One in three validation texts asks for nothing, six in all: far too few for a rate of 0.5 %."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["calibrate"] |= {"reject_intent": "music"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    calibrate.main()
    few = json.loads((folder / "metrics/calibrate.json").read_text())["budget"][0]["texts_that_ask_for_nothing"]
    printed = capsys.readouterr().out
    assert f"{few} texts that ask for nothing show no rate below {1 / (few + 1):.3g}" in printed
    allowed = float(re.search(r"-S calibrate.max_false_action_rate=([\d.]+)\)", printed)[1])
    params["calibrate"]["max_false_action_rate"] = allowed
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    before = json.loads((folder / "metrics/calibrate.json").read_text())["threshold"]
    calibrate.main()
    assert json.loads((folder / "metrics/calibrate.json").read_text())["threshold"] < before


def test_the_stage_keeps_the_limit_on_errors_or_says_that_it_cannot(finished, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["calibrate"] |= {"max_error_rate": 0.001}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match="calibrate.max_error_rate: 0.001 cannot be kept"):
        calibrate.main()
