"""Tests of intents.significance against exact enumeration, published examples and simulation."""

import itertools
from math import comb

import numpy as np
import pytest
from scipy.stats import ttest_ind
from sklearn.metrics import accuracy_score, f1_score

from intents.significance import (
    bootstrap_p,
    bootstrap_scores,
    bootstrap_shares,
    difference_over_seeds,
    holm,
    mcnemar_p,
    percentile_interval,
    student_interval,
)


def _right(only_a: int, only_b: int, both: int = 3, neither: int = 2) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, False, True, False], [only_a, only_b, both, neither])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, neither])
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (1, 3), (5, 5), (0, 6), (2, 9), (7, 4)])
def test_mcnemar_equals_the_enumeration_of_all_coin_flips(only_a, only_b):
    total = only_a + only_b
    as_extreme = [k for k in range(total + 1) if abs(k - total / 2) >= abs(only_a - total / 2)]
    expected = sum(comb(total, k) for k in as_extreme) / 2**total
    assert mcnemar_p(*_right(only_a, only_b)) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_gives_the_value_of_exact_implementations_elsewhere():
    # statsmodels.stats.contingency_tables.mcnemar([[101, 121], [59, 33]], exact=True): statistic 59
    assert mcnemar_p(*_right(121, 59)) == pytest.approx(4.434448e-06, rel=1e-5)


def test_mcnemar_of_equally_right_answers_is_one():
    assert mcnemar_p(*_right(0, 0)) == 1.0


def test_mcnemar_counts_false_alarms_at_most_as_often_as_it_says():
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(2000):
        a, b = random.random((2, 60)) < 0.8
        alarms += mcnemar_p(a, b) < 0.05
    assert alarms / 2000 <= 0.05


def test_holm_gives_the_textbook_example():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_never_more_than_one_and_leaves_a_single_test_alone():
    assert holm([0.9, 0.8, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_bootstrap_scores_equal_sklearn_on_every_drawn_sample():
    """With 3 rows all resamples are known: every score must be one that sklearn gives to one of the 27."""
    labels, predicted = np.array([0, 1, 2]), [np.array([0, 1, 1]), np.array([2, 1, 2])]
    accuracy, macro_f1 = bootstrap_scores(labels, predicted, 3, 20_000, seed=0)
    expected = []
    for rows in itertools.product(range(3), repeat=3):
        rows = list(rows)
        expected.append(
            [
                value
                for p in predicted
                for value in (
                    accuracy_score(labels[rows], p[rows]),
                    f1_score(labels[rows], p[rows], average="macro", zero_division=0),
                )
            ]
        )
    drawn = np.stack([accuracy[0], macro_f1[0], accuracy[1], macro_f1[1]], axis=1).round(5)
    possible = np.array(expected).round(5)
    values, counts = np.unique(drawn, axis=0, return_counts=True)
    wanted, weights = np.unique(possible, axis=0, return_counts=True)
    np.testing.assert_allclose(values, wanted, atol=1e-5)
    np.testing.assert_allclose(counts / 20_000, weights / 27, atol=0.02)


def test_bootstrap_scores_do_not_depend_on_how_many_samples_are_held_at_once(monkeypatch):
    random = np.random.default_rng(0)
    labels = random.integers(4, size=50)
    predicted = [random.integers(4, size=50) for _ in range(2)]
    whole = bootstrap_scores(labels, predicted, 4, 4000, seed=0)
    monkeypatch.setattr("intents.significance._WEIGHTS_PER_CHUNK", 50 * 300)
    parts = bootstrap_scores(labels, predicted, 4, 4000, seed=0)
    for a, b in zip(whole, parts, strict=True):
        assert a.shape == b.shape == (2, 4000)
        np.testing.assert_allclose(a.mean(1), b.mean(1), atol=0.005)
        np.testing.assert_allclose(a.std(1), b.std(1), atol=0.005)


def test_bootstrapped_shares_of_right_answers_are_the_bootstrapped_accuracies(monkeypatch):
    monkeypatch.setattr("intents.significance._WEIGHTS_PER_CHUNK", 50 * 30)
    random = np.random.default_rng(7)
    labels, predicted = random.integers(0, 3, 50), random.integers(0, 3, (2, 50))
    shares = bootstrap_shares(list(predicted == labels), 100, 5)
    assert shares == pytest.approx(bootstrap_scores(labels, list(predicted), 3, 100, 5)[0])


def test_bootstrapped_accuracy_has_the_binomial_standard_error():
    labels = np.zeros(400, dtype=int)
    predicted = np.repeat([0, 1], [300, 100])
    accuracy, _ = bootstrap_scores(labels, [predicted], 2, 20_000, seed=0)
    assert accuracy.mean() == pytest.approx(0.75, abs=0.001)
    assert accuracy.std() == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.03)


def test_pairing_narrows_the_difference_of_alike_classifiers():
    random = np.random.default_rng(0)
    labels = random.integers(5, size=500)
    first = np.where(random.random(500) < 0.8, labels, (labels + 1) % 5)
    second = first.copy()
    second[:10] = labels[:10]
    accuracy, macro_f1 = bootstrap_scores(labels, [first, second], 5, 4000, seed=0)
    for scores in (accuracy, macro_f1):
        assert (scores[1] - scores[0]).std() < 0.3 * scores[0].std()


def test_p_and_interval_agree_on_whether_zero_is_left_out():
    random = np.random.default_rng(0)
    for shift in (-3.0, -2.1, -1.8, 0.0, 1.5, 1.9, 2.05, 4.0):
        differences = random.normal(shift, 1, size=4000)
        low, high = percentile_interval(differences, 0.95)
        assert (bootstrap_p(differences) < 0.05) == (not low <= 0 <= high)


def test_p_is_one_without_a_difference_and_never_zero():
    assert bootstrap_p(np.zeros(999)) == 1.0
    assert bootstrap_p(np.ones(999)) == 2 / 1000


def test_paired_bootstrap_of_macro_f1_raises_few_false_alarms():
    random = np.random.default_rng(2)
    alarms = 0
    for trial in range(300):
        labels = random.integers(3, size=200)
        predicted = [np.where(random.random(200) < 0.85, labels, (labels + 1) % 3) for _ in range(2)]
        _, macro_f1 = bootstrap_scores(labels, predicted, 3, 500, seed=trial)
        alarms += bootstrap_p(macro_f1[1] - macro_f1[0]) < 0.05
    assert alarms / 300 < 0.09


def test_two_runs_are_taken_as_they_are():
    first, second = np.array([[0.1, 0.2, 0.3]]), np.array([[0.3, 0.3, 0.3]])
    found = difference_over_seeds(first, second, np.random.default_rng(0))
    assert found.tolist() == pytest.approx([0.2, 0.1, 0.0])


def test_seeds_alone_give_the_interval_of_students_two_sample_test():
    random = np.random.default_rng(0)
    first_m, second_m = random.normal(0.90, 0.01, 3), random.normal(0.92, 0.01, 5)
    groups = (np.repeat(scores[:, None], 200_000, axis=1) for scores in (first_m, second_m))
    found = percentile_interval(difference_over_seeds(*groups, random), 0.9)
    expected = ttest_ind(second_m, first_m).confidence_interval(0.9)
    assert found == pytest.approx((expected.low, expected.high), abs=2e-4)


@pytest.mark.parametrize(("num_first", "num_second"), [(1, 2), (1, 5), (2, 2), (3, 3), (2, 5)])
def test_equals_with_few_seeds_raise_as_many_false_alarms_as_it_says(num_first, num_second):
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(1000):
        groups = (np.repeat(random.normal(0.9, 0.01, size=(m, 1)), 400, axis=1) for m in (num_first, num_second))
        alarms += bootstrap_p(difference_over_seeds(*groups, random)) < 0.05
    assert 0.03 < alarms / 1000 < 0.08


def test_student_interval_gives_the_tabled_value():
    # 97.5 % quantile of t with 4 degrees of freedom: 2.776445
    values = [0.90, 0.91, 0.92, 0.93, 0.94]
    low, high = student_interval(values, 0.95)
    reach = 2.776445 * np.std(values, ddof=1) / 5**0.5
    assert (low, high) == pytest.approx((0.92 - reach, 0.92 + reach), abs=1e-7)
