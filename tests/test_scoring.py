import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from intents.headline import headline_metrics
from intents.scoring import (
    averaged_metrics,
    confusion_counts,
    macro_f1_interval,
    per_label_metrics,
    rounded,
    share_interval,
)

RANDOM = np.random.default_rng(3)
LABELS = RANDOM.integers(0, 4, size=200)
PREDICTED = np.where(RANDOM.random(200) < 0.7, LABELS, RANDOM.integers(0, 4, size=200))


def test_headline_metrics_are_those_of_scikit_learn():
    logits = RANDOM.normal(size=(200, 4)).astype(np.float32) + 2 * np.eye(4, dtype=np.float32)[LABELS]
    found = headline_metrics(LABELS, logits)
    assert found["accuracy"] == metrics.accuracy_score(LABELS, logits.argmax(1))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(LABELS, logits.argmax(1), average="macro"))
    # The definition, written out.
    shifted = logits.astype(np.float64)
    likelihood = shifted[np.arange(200), LABELS] - np.log(np.exp(shifted).sum(1))
    assert found["log_loss"] == pytest.approx(-likelihood.mean())


def test_headline_metrics_leave_out_intents_that_the_split_lacks_and_survive_huge_logits():
    found = headline_metrics(np.array([0, 1]), np.array([[1e4, 0, 0], [0, 1e4, 0]], dtype=np.float32))
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "log_loss": pytest.approx(0)}
    assert np.isfinite(headline_metrics(np.array([2]), np.array([[1e4, 0, 0]], dtype=np.float32))["log_loss"])


def test_averages_and_labels_agree_with_scikit_learns_report():
    report = metrics.classification_report(LABELS, PREDICTED, output_dict=True)
    averaged = averaged_metrics(LABELS, PREDICTED, 4)
    for average, name in (("macro", "macro avg"), ("weighted", "weighted avg")):
        for key, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert averaged[average][key] == pytest.approx(report[name][theirs])
    assert averaged["micro"] == pytest.approx(dict.fromkeys(("precision", "recall", "f1"), report["accuracy"]))
    for label, found in enumerate(per_label_metrics(LABELS, PREDICTED, 4)):
        theirs = report[str(label)]
        assert found == pytest.approx(
            {**{k: theirs[k] for k in ("precision", "recall", "support")}, "f1": theirs["f1-score"]}
        )


def test_a_label_that_nobody_has_or_answers_has_zeros_and_is_not_averaged():
    found = per_label_metrics(np.array([0, 0, 1]), np.array([0, 1, 1]), 3)
    assert found[2] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert averaged_metrics(np.array([0, 1]), np.array([0, 1]), 4)["macro"]["f1"] == 1
    assert averaged_metrics(np.array([0, 1]), np.array([0, 3]), 4)["macro"]["f1"] == pytest.approx(1 / 3)
    abstained = averaged_metrics(np.array([0, 1, 1]), np.array([0, 1, 4]), 4)["macro"]
    assert abstained["recall"] == 0.75


def test_confusion_counts_have_a_row_per_true_label():
    counts = confusion_counts(np.array([0, 0, 2]), np.array([1, 0, 2]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("successes, total", [(0, 10), (7, 10), (10, 10), (950, 1000)])
def test_share_interval_is_clopper_pearsons(successes, total):
    low, high = share_interval(successes, total, 0.9)
    assert low == pytest.approx(stats.beta.ppf(0.05, successes, total - successes + 1) if successes else 0)
    assert high == pytest.approx(stats.beta.ppf(0.95, successes + 1, total - successes) if successes < total else 1)


def test_share_interval_of_nothing_is_everything():
    assert share_interval(0, 0, 0.95) == (0.0, 1.0)


def test_bootstrap_interval_agrees_with_resampling_examples_one_by_one():
    random = np.random.default_rng(0)
    draws = [random.integers(0, 200, size=200) for _ in range(2000)]
    scores = []
    for draw in draws[:1000]:
        counts = np.bincount(4 * LABELS[draw] + PREDICTED[draw], minlength=16).reshape(4, 4)
        scores.append((2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))).mean())
    assert scores[0] == pytest.approx(metrics.f1_score(LABELS[draws[0]], PREDICTED[draws[0]], average="macro"))
    expected = np.quantile(scores, [0.05, 0.95])
    found = macro_f1_interval(LABELS, PREDICTED, 4, confidence_level=0.9, num_samples=2000, seed=0)
    assert found == pytest.approx(expected, abs=0.012)


def test_bootstrap_interval_holds_the_score_though_samples_miss_rare_labels():
    labels = np.repeat(np.arange(150), 3)
    predicted = np.where(RANDOM.random(450) < 0.9, labels, RANDOM.integers(0, 150, 450))
    low, high = macro_f1_interval(labels, predicted, 150, confidence_level=0.95, num_samples=500, seed=0)
    assert low < averaged_metrics(labels, predicted, 150)["macro"]["f1"] < high


def test_bootstrap_interval_does_not_depend_on_how_many_samples_are_held_at_once(monkeypatch):
    settings = {"num_labels": 4, "confidence_level": 0.9, "num_samples": 200, "seed": 0}
    whole = macro_f1_interval(LABELS, PREDICTED, **settings)
    monkeypatch.setattr("intents.scoring._DRAWS_AT_ONCE", 100)
    assert macro_f1_interval(LABELS, PREDICTED, **settings) == whole


def test_bootstrap_interval_covers_the_true_score_about_as_often_as_it_says():
    # A classifier that is right with probability 0.8, three equally frequent labels: its macro-F1 is 0.8.
    random = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        labels = random.integers(0, 3, size=300)
        predicted = np.where(random.random(300) < 0.8, labels, (labels + random.integers(1, 3, size=300)) % 3)
        low, high = macro_f1_interval(labels, predicted, 3, confidence_level=0.9, num_samples=300, seed=trial)
        covered += low <= 0.8 <= high
    assert 0.84 < covered / 300 < 0.95


def test_bootstrap_interval_widens_with_confidence_and_repeats_with_the_seed():
    arguments = {"num_samples": 500, "seed": 0}
    narrow = macro_f1_interval(LABELS, PREDICTED, 4, confidence_level=0.5, **arguments)
    wide = macro_f1_interval(LABELS, PREDICTED, 4, confidence_level=0.99, **arguments)
    point = averaged_metrics(LABELS, PREDICTED, 4)["macro"]["f1"]
    assert wide[0] < narrow[0] < point < narrow[1] < wide[1]
    assert macro_f1_interval(LABELS, PREDICTED, 4, confidence_level=0.5, **arguments) == narrow


def test_a_faultless_classifier_has_the_interval_of_its_accuracy():
    """No resample could show a mistake, however few rows there are."""
    found = macro_f1_interval(LABELS, LABELS, 4, confidence_level=0.95, num_samples=100, seed=0)
    assert found == share_interval(len(LABELS), len(LABELS), 0.95) and found[0] < 1


def test_rounds_floats_at_any_depth_and_leaves_the_rest():
    value = {
        "a": 0.123456,
        "b": [1, (0.999999, "0.123456")],
        "c": np.float64(0.33333333),
        "d": True,
        "e": None,
    }
    assert json.dumps(rounded(value)) == '{"a": 0.1235, "b": [1, [1.0, "0.123456"]], "c": 0.3333, "d": true, "e": null}'
