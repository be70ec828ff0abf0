import numpy as np
import pytest
from sklearn.metrics import f1_score

from intents.answers import Answers
from intents.calibrations import Calibration
from intents.ladder import ladder_table

INTENTS = ["no_intent", "wipers", "window"]
LABELS = np.array([0, 0, 1, 1, 2, 2])
LOGITS = np.log(
    np.array(
        [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.1, 0.7, 0.2], [0.1, 0.1, 0.8], [0.2, 0.3, 0.5]],
        dtype=np.float32,
    )
)
BASELINES = {"majority": ["no_intent"] * 6, "tfidf": ["no_intent", "wipers", "wipers", "window", "window", "window"]}


def answers(calibration):
    return Answers(INTENTS, [""] * 6, [""] * 6, LABELS, LOGITS, calibration)


def test_rungs_are_scored_on_the_same_rows_from_the_lowest():
    ladder = ladder_table(answers(Calibration()), BASELINES, 0.95, 100, 0)
    assert [row["rung"] for row in ladder] == ["majority", "tfidf", "fine_tuned"]
    assert [row["accuracy"] for row in ladder] == pytest.approx([2 / 6, 4 / 6, 5 / 6], abs=1e-4)
    assert ladder[1]["macro_f1"] == pytest.approx(f1_score(LABELS, [0, 1, 1, 2, 2, 2], average="macro"), abs=1e-4)
    for row in ladder:
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
        assert row["macro_f1_low"] <= row["macro_f1"] <= row["macro_f1_high"]


def test_thresholds_are_a_rung_of_their_own():
    calibration = Calibration(1.0, {"wipers": 0.75, "window": 0.65}, "no_intent", ("no_intent",))
    ladder = ladder_table(answers(calibration), BASELINES, 0.95, 100, 0)
    accuracy = {row["rung"]: row["accuracy"] for row in ladder}
    assert accuracy["fine_tuned"] == pytest.approx(5 / 6, abs=1e-4)  # compared with baselines: its likeliest intent
    assert accuracy["fine_tuned_with_thresholds"] == pytest.approx(4 / 6, abs=1e-4)  # one more right, two fewer
    assert list(accuracy)[-1] == "fine_tuned_with_thresholds"


def test_answers_to_other_rows_are_an_error():
    with pytest.raises(ValueError, match="shape|inconsistent|broadcast"):
        ladder_table(answers(Calibration()), {"majority": ["no_intent"] * 5}, 0.95, 100, 0)
