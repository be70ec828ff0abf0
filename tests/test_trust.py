"""Metrics of trust: definitions written out, and what they say about abstentions."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics

from apps import results
from intents import evaluating, trust
from intents.answers import Answers
from intents.calibrations import ABSTAIN, Calibration
from intents.ladder import ladder_table
from intents.scoring import confusion_counts, macro_f1_interval
from intents.significance import bootstrap_scores
from stages import evaluate

INTENTS = ["no_intent", "wipers", "window"]
RANDOM = np.random.default_rng(5)
LABELS = RANDOM.integers(0, 3, size=300)
LOGITS = (RANDOM.normal(size=(300, 3)) + 2 * np.eye(3)[LABELS]).astype(np.float32)
KINDS = [("mention" if i % 2 else "negation") if label == 0 else "plain" for i, label in enumerate(LABELS)]
CALIBRATION = Calibration(1.3, {"wipers": 0.6, "window": 0.8}, "no_intent", ("no_intent",))


def answers(calibration=CALIBRATION, **changed):
    return Answers(**{"intents": INTENTS, "texts": [], "kinds": KINDS, "labels_n": LABELS, "logits_nc": LOGITS}
                   | changed, calibration=calibration)  # fmt: skip


def test_probability_metrics_are_those_of_their_definitions():
    probabilities = answers().probabilities_nc.astype(np.float64)
    found = trust.probability_metrics(answers())
    assert found["log_loss"] == pytest.approx(-np.log(probabilities[np.arange(300), LABELS]).mean(), rel=1e-5)
    assert found["brier"] == pytest.approx(
        sum(metrics.brier_score_loss(LABELS == i, probabilities[:, i]) for i in range(3)), rel=1e-5
    )
    confidence, right = probabilities.max(1), probabilities.argmax(1) == LABELS
    bins = np.array_split(np.argsort(confidence, kind="stable"), trust.NUM_BINS)
    expected = sum(abs(confidence[b].mean() - right[b].mean()) * len(b) for b in bins) / 300
    assert found["ece"] == pytest.approx(expected, rel=1e-5)


def test_bins_hold_equally_many_examples():
    table = trust.reliability_table(answers())
    assert [row["examples"] for row in table] == [20] * 15
    assert [row["confidence"] for row in table] == sorted(row["confidence"] for row in table)


def test_false_actions_and_obeyed_commands_are_counted_after_thresholds():
    found = trust.action_metrics(answers(), 0.95)
    probabilities = answers().probabilities_nc
    likeliest, confidence = probabilities.argmax(1), probabilities.max(1)
    acted = (likeliest > 0) & (confidence >= np.array([0, 0.6, 0.8])[likeliest])
    assert found["false_action_rate"] == acted[LABELS == 0].mean() > 0
    assert found["commands_obeyed"] == (acted & (likeliest == LABELS))[LABELS > 0].mean()
    low, high = found["false_action_interval"]
    assert low < found["false_action_rate"] < high
    assert found["rejection_auroc"] == metrics.roc_auc_score(LABELS > 0, probabilities[:, 1:].max(1))


def test_data_without_texts_that_ask_for_nothing_has_no_false_actions():
    plain = answers(Calibration())
    assert trust.action_metrics(plain, 0.95) == {}
    assert trust.action_table(plain) == [] == trust.false_action_table(plain, 0.95)


def test_false_actions_are_told_apart_by_kind_of_near_miss():
    table = trust.false_action_table(answers(), 0.95)
    assert {row["kind"] for row in table} == {"mention", "negation"}
    assert sum(row["texts"] for row in table) == (LABELS == 0).sum()
    assert sum(row["false_actions"] for row in table) == answers().acted_n[LABELS == 0].sum()
    assert all(row["low"] <= row["rate"] <= row["high"] for row in table)


def test_before_is_the_plain_classifier_and_after_the_calibrated_one():
    before, after = trust.before_after_table(answers(), 0.95)
    assert before["accuracy"] == (LOGITS.argmax(1) == LABELS).mean()
    assert (before["coverage"], before["error_rate"]) == (1.0, 1 - before["accuracy"])
    assert after["false_action_rate"] < before["false_action_rate"]
    assert after["coverage"] < 1 and after["error_rate"] < before["error_rate"]


def test_curves_end_at_the_classifier_without_thresholds():
    last = trust.coverage_table(answers())[-1]
    before = trust.before_after_table(answers(), 0.95)[0]
    assert last == {"coverage": 1.0, "risk": pytest.approx(before["error_rate"])}
    last = trust.action_table(answers())[-1]
    assert (last["false_action_rate"], last["commands_obeyed"]) == pytest.approx(
        (before["false_action_rate"], before["commands_obeyed"])
    )


def test_an_untrained_intent_has_no_say_in_the_probabilities():
    logits = LOGITS.copy()
    logits[:, 0] = -30
    found = trust.probability_metrics(answers(logits_nc=logits, untrained=["no_intent"]))
    assert found["log_loss"] < 1  # the true intent of the others is likely; its own would cost 30 nats each


def test_an_abstention_is_no_intents_answer_and_nobodys_find():
    abstaining = answers(Calibration(1.0, dict.fromkeys(INTENTS, 0.7), ABSTAIN, ()))
    assert abstaining.names == [*INTENTS, ABSTAIN]
    abstained = abstaining.predicted_n == 3
    assert 0 < abstained.sum() < 300
    found = evaluating.headline(abstaining, 0.95, 500, 0)["test"]
    assert found["coverage"] == pytest.approx(1 - abstained.mean(), abs=1e-4)
    assert evaluating.confusion_matrix(abstaining).shape == (3, 4)
    assert evaluating.confusion_table(abstaining)[int(abstained.argmax())]["predicted"] == ABSTAIN
    accuracy, macro_f1 = bootstrap_scores(LABELS, [abstaining.predicted_n], 3, 500, 0)
    assert accuracy.mean() == pytest.approx((abstaining.predicted_n == LABELS).mean(), abs=0.01)
    expected = metrics.f1_score(LABELS, abstaining.predicted_n, labels=[0, 1, 2], average="macro")
    assert macro_f1.mean() == pytest.approx(expected, abs=0.01)


def test_accuracy_judges_the_likeliest_intents_and_actions_the_answers_given():
    strict = answers(Calibration(1.0, dict.fromkeys(INTENTS[1:], 0.9), "no_intent", ("no_intent",)))
    lax = answers(Calibration(1.0, {}, "no_intent", ("no_intent",)))
    found, without = (evaluating.headline(given, 0.95, 500, 0)["test"] for given in (strict, lax))
    assert found["accuracy"] == without["accuracy"] == pytest.approx((LOGITS.argmax(1) == LABELS).mean(), abs=1e-4)
    assert found["macro_f1"] == without["macro_f1"]
    assert found["commands_obeyed"] < without["commands_obeyed"]


def test_an_intent_that_only_thresholds_answer_is_part_of_the_accuracy():
    given = answers(
        Calibration(1.0, dict.fromkeys(INTENTS[1:], 0.9), "no_intent", ("no_intent",)), untrained=["no_intent"]
    )
    found = evaluating.headline(given, 0.95, 500, 0)["test"]
    assert found["accuracy"] == pytest.approx((given.predicted_n == LABELS).mean(), abs=1e-4)


def test_counts_with_a_column_for_abstentions_leave_the_interval_of_others_alone():
    predicted = LOGITS.argmax(1)
    wide = confusion_counts(LABELS, predicted, 3, 4)
    assert (wide[:, :3] == confusion_counts(LABELS, predicted, 3)).all() and not wide[:, 3].any()
    low, high = macro_f1_interval(LABELS, predicted, 3, 0.95, 500, 0)
    assert low < metrics.f1_score(LABELS, predicted, average="macro") < high


def test_an_intent_that_is_never_an_answer_is_no_part_of_the_accuracy():
    """Its texts were out of scope, in training too: they are to be rejected, and have rates of their own."""
    calibration = Calibration(1.0, dict.fromkeys(INTENTS[1:], 0.9), ABSTAIN, ("no_intent",))
    given = answers(calibration, untrained=["no_intent"], texts=[""] * 300)
    found = evaluating.headline(given, 0.95, 500, 0)["test"]
    trained = LABELS != 0
    assert found["examples"] == trained.sum()
    assert found["accuracy"] == pytest.approx((LOGITS.argmax(1) == LABELS)[trained].mean(), abs=1e-4)
    assert found["false_action_rate"] == pytest.approx(given.acted_n[~trained].mean(), abs=1e-4)
    assert all(row["intent"] != "no_intent" for row in evaluating.mistake_table(given, 1000))
    likeliest = given.likeliest
    assert [row["intent"] for row in evaluating.intent_table(likeliest)] == INTENTS[1:]
    averages = {row["average"]: row for row in evaluating.average_table(likeliest)}
    assert (averages["micro"]["f1"], averages["macro"]["f1"]) == (found["accuracy"], found["macro_f1"])
    baselines = {"majority": ["wipers"] * 300}
    rungs = {row["rung"]: row["accuracy"] for row in ladder_table(given, baselines, 0.95, 500, 0)}
    assert rungs["fine_tuned"] == found["accuracy"]
    assert rungs["majority"] == pytest.approx((LABELS[trained] == 1).mean(), abs=1e-4)
    before, _ = trust.before_after_table(given, 0.95)
    assert before["accuracy"] == pytest.approx(found["accuracy"], abs=1e-4)


def test_a_mistake_names_the_likeliest_intent_where_its_threshold_stopped_it():
    given = answers(Calibration(1.0, {"wipers": 1.01}, "no_intent", ("no_intent",)), texts=[""] * 300)
    table = evaluating.mistake_table(given, 1000)
    stopped = [row for row in table if row["predicted"] != row["likeliest"]]
    assert stopped and {(row["predicted"], row["likeliest"]) for row in stopped} == {("no_intent", "wipers")}


def test_a_comparison_counts_the_rows_that_the_accuracy_counts(tmp_path, monkeypatch):
    texts = [f"text {i}" for i in range(300)]
    given = answers(Calibration(1.0, {}, ABSTAIN, ("no_intent",)), untrained=["no_intent"], texts=texts)
    found = evaluating.headline(given, 0.95, 500, 0)
    rows = pa.table(
        {"row": np.arange(300), "text": texts, "intent": [INTENTS[label] for label in LABELS], "kind": KINDS}
    )
    monkeypatch.setattr(evaluate, "PREDICTIONS_PATH", tmp_path / "test.parquet")
    evaluate.write_predictions(given, rows)
    result = results._to_result("HEAD", {}, {}, found, (tmp_path / "test.parquet").read_bytes())
    assert len(result.texts) == found["test"]["examples"]
    assert result.right_n.mean() == pytest.approx(found["test"]["accuracy"], abs=1e-4)


def test_kinds_mistakes_and_confidences_are_of_the_right_rows():
    given = answers(texts=[f"text {i}" for i in range(300)]).likeliest
    right, kinds = LOGITS.argmax(1) == LABELS, np.array(KINDS)
    for row in evaluating.kind_table(given, 0.95):
        assert row["accuracy"] == pytest.approx(right[kinds == row["kind"]].mean(), abs=1e-4)
        assert row["low"] < row["accuracy"] < row["high"]
    counts = {True: 0, False: 0}
    for row in evaluating.confidence_table(given):
        counts[row["answer"] == "right"] += row["examples"]
    assert counts == {True: right.sum(), False: (~right).sum()}
    mistakes = evaluating.mistake_table(given, 7)
    assert [row["confidence"] for row in mistakes] == pytest.approx(
        sorted(given.confidence_n[~right])[:-8:-1], abs=1e-4
    )


def test_what_a_threshold_lets_through_is_counted_after_it():
    given = answers()
    assert {row["intent"] for row in trust.threshold_table(given)} == {"wipers", "window"}
    for row in trust.threshold_table(given):
        label = INTENTS.index(row["intent"])
        let_through = (LOGITS.argmax(1) == label) & (given.confidence_n >= np.float32(row["threshold"]))
        assert row["commands"] == (LABELS == label).sum() > row["obeyed"] == (let_through & (LABELS == label)).sum()
        assert row["false_actions"] == (let_through & (LABELS == 0)).sum()


def test_more_false_actions_than_allowed_are_as_rare_as_it_says_where_texts_are_alike():
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        validation, test = random.normal(size=300), random.normal(size=1000)
        threshold = np.sort(validation)[::-1][5]  # lets 5 of the 300 through
        alarms += trust.chance_of_more(int((test > threshold).sum()), 1000, 5, 300) < 0.025
    assert 0.015 < alarms / 2000 < 0.035
