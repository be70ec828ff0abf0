"""Temperature and thresholds: what they promise, and what they refuse to."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from intents.answers import Answers
from intents.calibrating import (
    allowed_false_actions,
    calibrate,
    error_threshold,
    false_action_threshold,
    fit_temperature,
)
from intents.calibrations import ABSTAIN, Calibration, read_calibration, write_calibration
from intents.roles import Limits, choose_roles

INTENTS = ["no_intent", "wipers", "window"]


def sample(count, seed, scale=1.0):
    """Labels and calibrated logits of a classifier that is sometimes wrong; `scale` makes them over-confident."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, 3)) * 2
    probabilities = np.exp(log_softmax(logits, axis=1))
    labels = (probabilities.cumsum(1) > random.random((count, 1))).argmax(1)
    return labels, (logits * scale).astype(np.float32)


def answers_of(labels, logits, calibration):
    return Answers(INTENTS, [], [], labels, logits, calibration)


def roles_of(reject="auto", out_of_scope=None, use="class", intents=INTENTS):
    return choose_roles(intents, reject, out_of_scope, use)


def test_the_temperature_undoes_over_confidence():
    labels, logits = sample(4000, seed=0, scale=3.0)
    assert fit_temperature(labels, logits) == pytest.approx(3.0, rel=0.06)


def test_a_faultless_validation_split_does_not_make_the_next_answer_certain():
    labels = np.array([0, 1, 2] * 20)
    logits = 5 * np.eye(3, dtype=np.float32)[labels]
    temperature = fit_temperature(labels, logits)
    assert 1 / 200 < 1 - np.exp(log_softmax(logits / temperature, axis=1)).max() < 1 / 50


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_false_action_rate_on_new_texts_keeps_the_limit_on_average(rate):
    found = []
    for seed in range(60):
        calibration = calibrate(*sample(400, seed), INTENTS, roles_of(), Limits(rate))
        new = answers_of(*sample(4000, 1000 + seed), calibration)
        found.append(new.acted_n[new.harmless_n].mean())
    assert 0.2 * rate < np.mean(found) <= 1.1 * rate


def test_the_budget_is_one_false_action_less_than_the_rate_of_the_rows():
    assert [allowed_false_actions(0.005, rows) for rows in (300, 398, 399, 1000)] == [0, 0, 1, 4]


def test_a_budget_of_none_puts_the_threshold_above_the_surest_false_action():
    odds = np.array([0.0, 1.0, 2.0, 2.6, 4.0])
    harmless = np.array([True, True, True, False, False])
    least = false_action_threshold(odds, np.ones(5, bool), harmless, rate=0.25)
    assert least == pytest.approx(2.3)  # half way to the next command: no text of either sort sits on it


def test_too_few_texts_for_the_rate_put_the_threshold_well_above_the_surest_false_action():
    odds = np.array([0.0, 2.0, 2.1])
    harmless = np.array([True, True, False])
    few, fewer = (false_action_threshold(odds, np.ones(3, bool), harmless, rate) for rate in (0.1, 0.01))
    assert few == pytest.approx(2 + np.log(1 / 0.3))
    assert fewer == pytest.approx(2 + np.log(1 / 0.03))
    # Even where the likeliest intent of none of them was an action.
    answered = np.array([False, False, True])
    assert false_action_threshold(odds, answered, harmless, 0.01) == fewer


def test_a_classifier_that_keeps_the_limit_anyway_gets_no_threshold():
    labels = np.array([0, 1, 2] * 100)
    calibration = calibrate(labels, 6 * np.eye(3, dtype=np.float32)[labels], INTENTS, roles_of(), Limits(0.05))
    assert calibration.thresholds == {}
    assert calibration.reject == "no_intent"


def test_a_stricter_intent_needs_more_and_leaves_the_others_alone():
    data = sample(1000, seed=1)
    plain = calibrate(*data, INTENTS, roles_of(), Limits(0.05))
    strict = calibrate(*data, INTENTS, roles_of(), Limits(0.05, stricter={"wipers": 0.004}))
    assert strict.thresholds["wipers"] > plain.thresholds["wipers"] == plain.thresholds["window"]
    assert strict.thresholds["window"] == plain.thresholds["window"]
    answers = answers_of(*data, strict)
    assert (answers.predicted_n == 1)[answers.harmless_n].mean() <= 0.004


def test_a_stricter_rate_for_what_no_threshold_guards_is_refused():
    for intent in ("sing", "no_intent"):
        with pytest.raises(ValueError, match=rf"calibrate.stricter: '{intent}' is no intent .*; valid: wipers, window"):
            calibrate(*sample(50, 0), INTENTS, roles_of(), Limits(0.05, stricter={intent: 0.01}))


def test_without_texts_that_ask_for_nothing_the_limit_is_on_wrong_answers():
    roles = choose_roles(["go", "stop", "turn"], "auto", None, "class")
    assert (roles.reject, roles.no_action) == (ABSTAIN, [])
    labels, logits = sample(2000, seed=2)
    assert calibrate(labels, logits, ["go", "stop", "turn"], roles, Limits(0.005)).thresholds == {}
    calibration = calibrate(labels, logits, ["go", "stop", "turn"], roles, Limits(0.005, 0.1))
    new_labels, new_logits = sample(5000, seed=3)
    answers = Answers(["go", "stop", "turn"], [], [], new_labels, new_logits, calibration)
    assert set(answers.predicted_n) == {0, 1, 2, 3} and answers.names[3] == ABSTAIN
    kept = answers.predicted_n != 3
    assert 0.3 < kept.mean() < 0.9
    assert (answers.predicted_n != new_labels)[kept].mean() == pytest.approx(0.1, abs=0.02)


def test_an_error_rate_that_so_few_rows_cannot_show_is_refused_with_the_least_they_can():
    right = np.zeros(40, bool)
    with pytest.raises(ValueError, match=r"0.01 cannot be kept: on 40 validation answers .* is 0.0244"):
        error_threshold(np.arange(40.0), right, 0.01)
    with pytest.raises(ValueError, match=r"calibrate.max_error_rate: 0.001 cannot be kept"):
        calibrate(*sample(50, 0), INTENTS, roles_of(), Limits(None, 0.001))
    assert error_threshold(np.arange(40.0), right, 0.05) == -np.inf


def test_equal_confidences_share_their_fate():
    odds = np.array([2.0, 1.0, 1.0, 1.0])
    wrong = np.array([False, False, False, True])
    assert error_threshold(np.repeat(odds, 10), np.repeat(wrong, 10), 0.2) == pytest.approx(1.5)


def test_auto_takes_no_intent_then_the_out_of_scope_intent_then_abstains():
    with_both = [*INTENTS, "oos"]
    assert roles_of(intents=with_both, out_of_scope="oos").no_action == ["no_intent", "oos"]
    assert roles_of(intents=with_both, out_of_scope="oos").harmless == ["no_intent"]
    assert roles_of(intents=with_both, out_of_scope="oos", use="both").harmless == ["no_intent", "oos"]
    scoped = choose_roles(["go", "oos"], "auto", "oos", "threshold")
    assert (scoped.reject, scoped.harmless, scoped.untrained) == ("oos", ["oos"], ["oos"])
    assert choose_roles(["go", "oos"], "auto", "oos", "class").harmless == []
    assert roles_of(reject=None).reject == ABSTAIN


def test_a_reject_intent_that_the_data_lacks_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"calibrate.reject_intent: the data has no intent 'oos'; it has: no_intent"):
        roles_of(reject="oos")


def test_a_limit_without_rows_to_keep_it_on_is_refused():
    labels, logits = sample(50, 0)
    chosen = labels != 0
    with pytest.raises(ValueError, match="calibrate.max_false_action_rate: no validation row has the intent no_intent"):
        calibrate(labels[chosen], logits[chosen], INTENTS, roles_of(), Limits(0.05))


def test_rows_of_an_untrained_intent_set_thresholds_and_leave_the_temperature_alone():
    labels, logits = sample(600, seed=4)
    trained = labels != 0
    logits[:, 0] = -20  # an output that never saw an example
    roles = choose_roles(INTENTS, "auto", "no_intent", "threshold")
    calibration = calibrate(labels, logits, INTENTS, roles, Limits(0.02))
    assert calibration.temperature == fit_temperature(labels[trained], logits[trained])
    answers = answers_of(labels, logits, calibration)
    assert answers.acted_n[answers.harmless_n].mean() <= 0.02
    assert set(answers.predicted_n[answers.harmless_n]) >= {0}


def test_certainty_in_float32_is_not_enough_where_a_false_action_had_it():
    labels = np.array([0, 1] * 50)
    logits = np.tile(np.array([0, 60, 0], dtype=np.float32), (100, 1))
    calibration = calibrate(labels, logits, INTENTS, roles_of(), Limits(0.05))
    assert not answers_of(labels, logits, calibration).acted_n.any()


def test_a_calibration_is_read_back_as_it_was_written(tmp_path):
    calibration = Calibration(1.5, {"window": float(expit(2.0))}, ABSTAIN, ("no_intent",))
    write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path, INTENTS) == calibration


def test_where_thresholds_must_be_their_lack_is_an_error(tmp_path):
    assert read_calibration(tmp_path, INTENTS) == Calibration()
    with pytest.raises(ValueError, match="calibration.json is missing: run `dvc repro calibrate`"):
        read_calibration(tmp_path, INTENTS, required=True)


def test_a_limit_on_answers_that_validation_never_gives_is_refused():
    labels, logits = sample(400, seed=3)
    logits[:, 2] = -20
    roles = roles_of(reject=None)
    with pytest.raises(
        ValueError, match=r"calibrate.stricter.window: 0.01 cannot be kept: on 0 .*; set a higher rate, or remove it"
    ):
        calibrate(labels, logits, INTENTS, roles, Limits(stricter={"window": 0.01}))
    with pytest.raises(
        ValueError, match=r"calibrate.max_error_rate: 0.01 .*on 0 .*; set a higher rate, or null to answer everything"
    ):
        calibrate(labels * 0, logits - [0, 20, 20], INTENTS, roles_of(), Limits(max_error_rate=0.01))


def test_data_without_an_intent_to_act_on_is_refused():
    labels, logits = sample(100, seed=3)
    intents = ["no_intent", "oos"]
    roles = roles_of(out_of_scope="oos", intents=intents)
    with pytest.raises(ValueError, match=r"calibrate.reject_intent: every intent \(no_intent, oos\) asks for nothing"):
        calibrate(labels % 2, logits[:, :2], intents, roles, Limits(0.01))


def test_the_error_rate_is_kept_among_the_answers_that_a_stricter_limit_leaves():
    odds = np.concatenate([np.linspace(6, 6.2, 20), np.linspace(3, 4, 80)])
    wrong = np.arange(100) < 8  # the surest answers are wrong
    assert error_threshold(odds, wrong, 0.2) == -np.inf
    with pytest.raises(ValueError, match="0.05 cannot be kept: on 20 validation answers the least .* is 0.0769"):
        error_threshold(odds, wrong[::-1] | wrong, 0.05, least=5.0)
    least = error_threshold(odds, wrong, 0.2, least=5.0)
    kept = odds >= least
    assert least >= 5 and wrong[kept].mean() <= 0.2
    assert error_threshold(odds, wrong, 0.2, least=7.0) == 7.0  # no answer, no error


def test_an_intent_that_is_called_as_abstaining_is_refused():
    with pytest.raises(ValueError, match="calibrate.reject_intent: the data has an intent 'abstain'"):
        choose_roles(["abstain", "go"], "auto", None, "class")
    assert choose_roles(["abstain", "go"], "abstain", None, "class").reject == ABSTAIN


def test_a_calibration_with_a_stranger_intent_or_no_temperature_is_refused(tmp_path):
    write_calibration(tmp_path, Calibration(2.0, {"fly": 0.5}, "no_intent"))
    with pytest.raises(ValueError, match=r"names fly, unknown to the classifier; it has: no_intent, wipers, window"):
        read_calibration(tmp_path, INTENTS)
    write_calibration(tmp_path, Calibration(0.0, {"window": 0.5}, "no_intent"))
    with pytest.raises(ValueError, match="temperature must be a positive number, got 0"):
        read_calibration(tmp_path, INTENTS)
