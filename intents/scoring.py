"""Detailed classification metrics with intervals, for evaluation alone.

Shapes: n examples, c intents.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

Labels = NDArray[np.int64]


def averaged_metrics(labels_n: Labels, predicted_n: Labels, num_labels: int) -> dict[str, dict[str, float]]:
    """Return precision, recall and f1 under macro, micro and weighted averaging; an undefined ratio counts as 0."""
    found = {}
    for average in ("macro", "micro", "weighted"):
        scores = precision_recall_fscore_support(
            labels_n, predicted_n, labels=np.arange(num_labels), average=average, zero_division=0
        )
        found[average] = dict(zip(("precision", "recall", "f1"), map(float, scores[:3]), strict=True))
    return found


def per_label_metrics(labels_n: Labels, predicted_n: Labels, num_labels: int) -> list[dict[str, float]]:
    """Return precision, recall, f1 and support of each label; an undefined ratio counts as 0."""
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
    interval = binomtest(successes, total).proportion_ci(confidence_level, method="exact")
    return float(interval.low), float(interval.high)


def macro_f1_interval(
    labels_n: Labels, predicted_n: Labels, num_labels: int, confidence_level: float, num_samples: int, seed: int
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of macro-F1 over resampled test examples (Efron 1979).

    Resampling examples is drawing the cells of the confusion matrix from a multinomial distribution, which is how it
    is done here. Answers from `num_labels` on are abstentions: their rows are found by nobody.
    """
    num_answers = max(num_labels, int(predicted_n.max()) + 1)
    counts = confusion_counts(labels_n, predicted_n, num_labels, num_answers)
    total = counts.sum()
    random = np.random.default_rng(seed)
    draws = random.multinomial(total, counts.ravel() / total, size=num_samples)
    matrices = draws.reshape(num_samples, num_labels, num_answers)
    right = np.einsum("sii->si", matrices[:, :, :num_labels])
    answered_or_true = matrices.sum(1)[:, :num_labels] + matrices.sum(2)
    f1 = 2 * right / np.maximum(answered_or_true, 1)
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(f1.mean(1), [tail, 1 - tail])
    return float(low), float(high)


def rounded(value: Any, digits: int = 4) -> Any:
    """Return `value` (a float, or dicts, lists and tuples of them) with floats rounded, for files that people read."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value
