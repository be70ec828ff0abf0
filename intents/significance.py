"""Whether a difference between classifiers on the same test rows, or between seeds, could be luck.

Shapes: n test rows, r results (the answers of r classifiers to those rows), c intents, s bootstrap samples,
m seeds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import binomtest, t

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
_WEIGHTS_PER_CHUNK = 500_000  # rows x samples at a time: 2 MB, so that they stay in the processor's cache


def mcnemar_p(right_a_n: NDArray[np.bool_], right_b_n: NDArray[np.bool_]) -> float:
    """Return the two-sided p-value of McNemar's test for equal accuracy, in its exact form.

    Only the rows that one of the two gets right and the other wrong say anything; if the accuracies are equal,
    each of them is a fair coin (McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions"; Dietterich 1998 recommends it for two classifiers and one test set). Exact binomial, no
    chi-square approximation.
    """
    only_a = int((right_a_n & ~right_b_n).sum())
    only_b = int((right_b_n & ~right_a_n).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values, in the same order, adjusted for being read together.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the chance of even one false alarm among
    all of them stays below the level that the adjusted values are compared with, whatever their dependence.
    """
    adjusted = [1.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def bootstrap_scores(
    labels_n: Labels, predicted_rn: Sequence[Labels], num_labels: int, num_samples: int, seed: int
) -> tuple[Floats, Floats]:
    """Return accuracy and macro-F1, each (r, s), of every result on the same resamples of the test rows.

    Efron 1979. The samples are shared, so that the difference of two rows of the answer is the paired
    bootstrap (Koehn 2004, "Statistical significance tests for machine translation evaluation"). Macro-F1
    averages over the intents that are true or answered in a sample; a label of c or above is an answer that is no
    intent, an abstention.
    """
    random = np.random.default_rng(seed)
    num_rows = len(labels_n)
    true_cn = _indicator(labels_n, np.ones(num_rows), num_labels)
    answered = [
        _indicator(np.minimum(predicted_n, num_labels - 1), predicted_n < num_labels, num_labels)
        for predicted_n in predicted_rn
    ]
    right = [_indicator(labels_n, labels_n == predicted_n, num_labels) for predicted_n in predicted_rn]
    accuracy = np.empty((len(predicted_rn), num_samples))
    macro_f1 = np.empty_like(accuracy)
    size = max(1, _WEIGHTS_PER_CHUNK // num_rows)
    for start in range(0, num_samples, size):
        chunk = slice(start, min(start + size, num_samples))
        weights_ns = _draw(random, num_rows, chunk.stop - chunk.start)
        true_cs = true_cn @ weights_ns
        for r, (answered_cn, right_cn) in enumerate(zip(answered, right, strict=True)):
            right_cs = right_cn @ weights_ns
            accuracy[r, chunk] = right_cs.sum(0) / num_rows
            either_cs = true_cs + answered_cn @ weights_ns
            f1_cs = 2 * right_cs / np.maximum(either_cs, 1)
            macro_f1[r, chunk] = f1_cs.sum(0, dtype=np.float64) / (either_cs > 0).sum(0)
    return accuracy, macro_f1


def bootstrap_shares(hits_rn: Sequence[NDArray[np.bool_]], num_samples: int, seed: int) -> Floats:
    """Return the share of rows that each result hits, (r, s), on the same resamples of the rows."""
    random = np.random.default_rng(seed)
    hits = np.array(hits_rn, dtype=np.float32)
    num_rows = hits.shape[1]
    size = max(1, _WEIGHTS_PER_CHUNK // num_rows)
    chunks = [hits @ _draw(random, num_rows, min(size, num_samples - start)) for start in range(0, num_samples, size)]
    return np.concatenate(chunks, axis=1, dtype=np.float64) / num_rows


def _indicator(labels_n: Labels, values_n: NDArray[np.generic], num_labels: int) -> csr_array:
    """Return `values_n` at (label of the row, row), (c, n)."""
    columns = np.arange(len(labels_n))
    matrix = csr_array((values_n.astype(np.float32), (labels_n, columns)), shape=(num_labels, len(labels_n)))
    matrix.eliminate_zeros()
    return matrix


def _draw(random: np.random.Generator, num_rows: int, num_samples: int) -> NDArray[np.float32]:
    """Return how often each row was drawn into each sample, (n, s): n draws with replacement per sample."""
    cells = random.integers(num_rows, size=(num_rows, num_samples)) * num_samples + np.arange(num_samples)
    counts = np.bincount(cells.ravel(), minlength=num_rows * num_samples)
    return counts.reshape(num_rows, num_samples).astype(np.float32)


def difference_over_seeds(first_ms: Floats, second_ms: Floats, random: np.random.Generator) -> Floats:
    """Return second minus first, means over seeds, in each sample, (s,), as other seeds could have left it.

    Each sample is moved by the standard error of the difference, by the variance between seeds that both groups share,
    times Student's t, as in his two-sample test: with two or three seeds a group, to draw from these seeds in place of
    that finds a difference between equals in up to 33 and 18 % of cases at a level of 5 %. A group of one seed has no
    variance to show, and the other's stands for it; two of them are taken as they are. Where seeds hardly matter it
    errs on the safe side: the variance between seeds holds some of the chance in the rows, which the samples hold as
    well. Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks", is why seeds and rows are
    varied together.
    """
    groups = first_ms, second_ms
    difference_s: Floats = second_ms.mean(0) - first_ms.mean(0)
    freedom = sum(len(group_ms) - 1 for group_ms in groups)
    if not freedom:
        return difference_s
    squares = sum(((group_ms.mean(1) - group_ms.mean()) ** 2).sum() for group_ms in groups)
    error = (squares / freedom * sum(1 / len(group_ms) for group_ms in groups)) ** 0.5
    moved: Floats = np.clip(difference_s + error * random.standard_t(freedom, len(difference_s)), -1, 1)
    return moved


def percentile_interval(values_s: Floats, confidence_level: float) -> tuple[float, float]:
    """Return the percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13)."""
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(values_s, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p(differences_s: Floats) -> float:
    """Return the two-sided p-value of "no difference" from bootstrapped differences.

    It inverts the percentile interval (Efron and Tibshirani 1993, section 15.4): p falls below 0.05 where the
    95 % interval leaves out 0, up to the resolution of the samples. The samples count one more than there are
    (Davison and Hinkley 1997, section 4.2), so that p is never 0: the least is 2 / (s + 1).
    """
    most = len(differences_s) + 1
    below = (1 + int((differences_s <= 0).sum())) / most
    above = (1 + int((differences_s >= 0).sum())) / most
    return min(1.0, 2 * min(below, above))


def student_interval(values_m: Sequence[float], confidence_level: float) -> tuple[float, float]:
    """Return Student's t interval of the mean of m values, at least 2, such as one metric over seeds."""
    mean, deviation = float(np.mean(values_m)), float(np.std(values_m, ddof=1))
    reach = float(t.ppf((1 + confidence_level) / 2, len(values_m) - 1)) * deviation / len(values_m) ** 0.5
    return mean - reach, mean + reach
