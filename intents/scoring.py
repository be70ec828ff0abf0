"""Detailed classification metrics with intervals, for evaluation alone.

Shapes: n examples, c intents, s bootstrap samples, k cells of the confusion matrix that are not empty.

scikit-learn and SciPy's statistics take a second each to import: done where they are used.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Labels = NDArray[np.int64]
_DRAWS_AT_ONCE = 5_000_000  # numbers in one array of the bootstrap: 40 MB


def averaged_metrics(labels_n: Labels, predicted_n: Labels, num_labels: int) -> dict[str, dict[str, float]]:
    """Return precision, recall and f1 under macro, micro and weighted averaging; an undefined ratio counts as 0.

    Labels that are neither true nor answered anywhere take no part, as in scikit-learn; nor do answers from
    `num_labels` on, which are abstentions.
    """
    from sklearn.metrics import precision_recall_fscore_support

    present = np.intersect1d(np.concatenate([labels_n, predicted_n]), np.arange(num_labels))
    found = {}
    for average in ("macro", "micro", "weighted"):
        scores = precision_recall_fscore_support(
            labels_n, predicted_n, labels=present, average=average, zero_division=0
        )
        found[average] = dict(zip(("precision", "recall", "f1"), map(float, scores[:3]), strict=True))
    return found


def per_label_metrics(labels_n: Labels, predicted_n: Labels, num_labels: int) -> list[dict[str, float]]:
    """Return precision, recall, f1 and support of each label; an undefined ratio counts as 0."""
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(
        labels_n, predicted_n, labels=np.arange(num_labels), average=None, zero_division=0
    )
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for p, r, f, s in zip(*scores, strict=True)
    ]


def confusion_counts(
    labels_n: Labels, predicted_n: Labels, num_labels: int, num_answers: int | None = None
) -> NDArray[np.int64]:
    """Return how often each true label (row) was answered with each label (column), (c, c).

    With `num_answers` above c, the further columns are answers that are no label, such as abstaining.
    """
    counts = np.zeros((num_labels, num_answers or num_labels), dtype=np.int64)
    np.add.at(counts, (labels_n, predicted_n), 1)
    return counts


def share_interval(successes: int, total: int, confidence_level: float) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a share, (0, 1) where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, total).proportion_ci(confidence_level, method="exact")
    return float(interval.low), float(interval.high)


def macro_f1_interval(
    labels_n: Labels, predicted_n: Labels, num_labels: int, confidence_level: float, num_samples: int, seed: int
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of macro-F1 over resampled test examples (Efron 1979).

    Resampling examples is drawing the cells of the confusion matrix that are not empty from a multinomial
    distribution, which is how it is done here. In each sample the labels that occur there are averaged over. Answers
    from `num_labels` on are abstentions: their rows are found by nobody. Where all are right, so is every resample: the
    exact interval of accuracy stands in.
    """
    if (labels_n == predicted_n).all():
        return share_interval(len(labels_n), len(labels_n), confidence_level)
    num_answers = max(num_labels, int(predicted_n.max()) + 1)
    cells, counts = np.unique(labels_n * num_answers + predicted_n, return_counts=True)
    true_k, answer_k = np.divmod(cells, num_answers)
    right_kc = _members(true_k, (true_k == answer_k).astype(np.int64), num_labels)
    either_kc = _members(true_k, np.ones_like(true_k), num_labels) + _members(
        np.minimum(answer_k, num_labels - 1), (answer_k < num_labels).astype(np.int64), num_labels
    )
    random = np.random.default_rng(seed)
    macro_f1 = np.empty(num_samples)
    size = max(1, _DRAWS_AT_ONCE // max(len(cells), num_labels))
    for start in range(0, num_samples, size):
        stop = min(start + size, num_samples)
        draws_sk = random.multinomial(len(labels_n), counts / len(labels_n), size=stop - start)
        either_sc = draws_sk @ either_kc
        f1_sc = 2 * (draws_sk @ right_kc) / np.maximum(either_sc, 1)
        macro_f1[start:stop] = f1_sc.sum(1) / (either_sc > 0).sum(1)
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(macro_f1, [tail, 1 - tail])
    return float(low), float(high)


def _members(labels_k: Labels, values_k: Labels, num_labels: int) -> csr_array:
    """Return `values_k` at (cell, label of the cell), (k, c)."""
    return csr_array((values_k, (np.arange(len(labels_k)), labels_k)), shape=(len(labels_k), num_labels))


def rounded(value: Any, digits: int = 4) -> Any:
    """Return `value` (a float, or dicts, lists and tuples of them) with floats rounded, for files that people read."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value
