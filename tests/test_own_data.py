"""The pipeline on data of other people: no intent that stands for doing nothing, or texts that are out of scope."""

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from apps.demo.showcase import confusion_of
from intents.tables import intents_of
from tests.pipeline import commit, copy_repository, edit_params, run, stages_run

pytestmark = pytest.mark.filterwarnings("default")
SAID = {"door": "open close door", "light": "light on off", "music": "music seat cold", "oos": "it is now"}
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


@pytest.fixture(scope="module")
def repository(tmp_path_factory, tiny_encoder):
    """A small repository that has run on data without an intent to reject with, by the settings that README names."""
    target = copy_repository(tmp_path_factory.mktemp("own"), tiny_encoder)
    write(target / "tickets.csv", ["door", "light", "music"])
    write(target / "scoped.csv", ["door", "light", "music", "oos"])
    own = {"source": "tickets.csv", "text_column": "body", "intent_column": "queue", "exclude_intents": []}
    edit_params(target, prepare={**own, "near_duplicate_threshold": 1.0})
    run(target, "dvc", "repro", "card")
    commit(target, "own data")
    return target


def calibration_of(repository: Path) -> dict:
    return json.loads((repository / "models/calibration/calibration.json").read_text())


def predictions_of(repository: Path) -> list[dict]:
    return pq.read_table(repository / "data/predictions/test.parquet").to_pylist()


def test_without_an_intent_to_reject_with_every_text_is_answered(repository):
    calibration = calibration_of(repository)
    assert (calibration["thresholds"], calibration["reject"], calibration["no_action"]) == ({}, "abstain", [])
    assert {row["predicted"] for row in predictions_of(repository)} <= {"door", "light", "music"}
    test = json.loads((repository / "metrics/evaluate.json").read_text())["test"]
    assert "false_action_rate" not in test and test["coverage"] == 1.0


def test_behavioural_pairs_about_other_intents_are_left_out_and_the_ladder_stands(repository):
    metrics = json.loads((repository / "metrics/evaluate.json").read_text())
    num_pairs = len((repository / "data/behaviour/pairs.csv").read_text().splitlines()) - 1
    assert metrics["test"]["behaviour_pairs"] == [{"asked": 0, "left_out": num_pairs}]
    assert "behaviour_passed" not in metrics["test"]
    page = (repository / "metrics/report.html").read_text()
    assert "<h2>Behaviour</h2>" not in page and "<h2>Ladder</h2>" in page
    assert list(metrics["ladder"]) == ["majority", "tfidf", "frozen_encoder", "fine_tuned"]
    assert metrics["ladder"]["tfidf"] > metrics["ladder"]["majority"]


def test_thresholds_can_make_it_abstain_and_every_reader_follows(repository):
    path = repository / "models/calibration/calibration.json"
    before = path.read_bytes()
    try:
        usual = Counter(row["predicted"] for row in predictions_of(repository)).most_common(1)[0][0]
        path.unlink()  # a link into the cache
        path.write_text(json.dumps({**json.loads(before), "thresholds": {usual: 1.01}}))
        run(repository, "python", "-m", "stages.evaluate")
        found = predictions_of(repository)
        answer_to = {usual: "abstain"}
        assert all(row["answer"] == answer_to.get(row["predicted"], row["predicted"]) for row in found)
        assert "abstain" in {row["answer"] for row in found}
        assert {row["predicted"] for row in found} <= {"door", "light", "music"}
        matrix = confusion_of(repository / "data/predictions/test.parquet")
        assert sum(map(sum, matrix.counts)) == len(found)
        test = json.loads((repository / "metrics/evaluate.json").read_text())["test"]
        assert test["coverage"] == pytest.approx(
            sum(row["answer"] != "abstain" for row in found) / len(found), abs=1e-4
        )
        run(repository, "python", "-m", "stages.card")
        (repository / "in.csv").write_text("text\n" + "\n".join(row["text"] for row in found) + "\n")
        run(repository, "python", "-m", "apps.predict", "in.csv", "out.csv", "--model", "models/classifier")
        assert "abstain" in (repository / "out.csv").read_text()
    finally:
        path.write_bytes(before)
        run(repository, "python", "-m", "stages.evaluate")


def test_out_of_scope_texts_set_the_threshold_without_being_trained_on(repository):
    scope = {"source": "scoped.csv", "out_of_scope_intent": "oos", "out_of_scope_use": "threshold"}
    edit_params(repository, prepare=scope, calibrate={"max_false_action_rate": 0.2})
    done = run(repository, "dvc", "repro", "evaluate")
    assert stages_run(done.stdout) == ["prepare", "tokenize", "train", "calibrate", "baselines", "evaluate"]
    train = pq.read_table(repository / "data/prepared/train.parquet").column("intent").to_pylist()
    assert "oos" not in train and intents_of(repository / "data/prepared/train.parquet")[-1] == "oos"
    calibration = calibration_of(repository)
    assert (calibration["reject"], calibration["no_action"]) == ("oos", ["oos"])
    assert set(calibration["thresholds"]) == {"door", "light", "music"}  # a random third of the rows would act
    test = json.loads((repository / "metrics/evaluate.json").read_text())["test"]
    assert test["false_action_rate"] < 0.5 and test["log_loss"] < 3
    assert "oos" in {row["predicted"] for row in predictions_of(repository)}
    validation = json.loads((repository / "metrics/train.json").read_text())["validation"]
    assert validation["accuracy"] > 0.4  # rows of an intent that train lacks would halve it


def test_a_changed_limit_never_retrains(repository):
    edit_params(repository, calibrate={"max_false_action_rate": 0.1})
    assert "train" not in stages_run(run(repository, "dvc", "repro", "evaluate").stdout)
