"""What a classifier's answers to the test split are worth: numbers, tables and the rows of plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from intents.headline import headline_metrics
from intents.scoring import (
    Labels,
    averaged_metrics,
    confusion_counts,
    macro_f1_interval,
    per_label_metrics,
    rounded,
    share_interval,
)

_HISTOGRAM_BINS = 20
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Answers:
    """A classifier's answers to n examples of c intents."""

    intents: Sequence[str]  # c names
    texts: Sequence[str]
    kinds: Sequence[str]  # empty strings where the data has none
    labels_n: Labels
    logits_nc: NDArray[np.float32]

    @property
    def predicted_n(self) -> Labels:
        """Label of the most probable intent."""
        return self.logits_nc.argmax(1)

    @property
    def confidence_n(self) -> NDArray[np.float64]:
        """Probability of the predicted intent."""
        confidence: NDArray[np.float64] = softmax(self.logits_nc.astype(np.float64), axis=1).max(1)
        return confidence


def headline(answers: Answers, confidence_level: float, num_samples: int, seed: int) -> dict[str, Any]:
    """Return the few numbers that experiments are compared by; intervals are lists, which `dvc exp show` leaves out."""
    labels, predicted = answers.labels_n, answers.predicted_n
    right = int((labels == predicted).sum())
    found: dict[str, Any] = dict(headline_metrics(labels, answers.logits_nc))
    found["accuracy_interval"] = share_interval(right, len(labels), confidence_level)
    found["macro_f1_interval"] = macro_f1_interval(
        labels, predicted, len(answers.intents), confidence_level, num_samples, seed
    )
    found["examples"] = len(labels)
    return {"test": rounded(found)}


def average_table(answers: Answers) -> Table:
    """Return precision, recall and F1 under each averaging."""
    averages = averaged_metrics(answers.labels_n, answers.predicted_n, len(answers.intents))
    return [rounded({"average": name, **scores}) for name, scores in averages.items()]


def intent_table(answers: Answers) -> Table:
    """Return precision, recall, F1 and number of test examples per intent."""
    scores = per_label_metrics(answers.labels_n, answers.predicted_n, len(answers.intents))
    return [rounded({"intent": intent, **row}) for intent, row in zip(answers.intents, scores, strict=True)]


def kind_table(answers: Answers, confidence_level: float) -> Table:
    """Return accuracy with its exact interval per kind of example; empty where the data has no kinds."""
    kinds = np.asarray(answers.kinds)
    right = answers.labels_n == answers.predicted_n
    rows = []
    for kind in sorted(set(answers.kinds) - {""}):
        chosen = right[kinds == kind]
        low, high = share_interval(int(chosen.sum()), len(chosen), confidence_level)
        rows.append({"kind": kind, "accuracy": float(chosen.mean()), "low": low, "high": high, "support": len(chosen)})
    return [rounded(row) for row in rows]


def confusion_table(answers: Answers) -> Table:
    """Return the true and the predicted intent of each example, as the confusion templates of DVC want them."""
    return [
        {"actual": answers.intents[label], "predicted": answers.intents[predicted]}
        for label, predicted in zip(answers.labels_n, answers.predicted_n, strict=True)
    ]


def confidence_table(answers: Answers) -> Table:
    """Return a histogram of the confidence of right and of wrong answers."""
    right = answers.labels_n == answers.predicted_n
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    rows = []
    for name, chosen in (("right", right), ("wrong", ~right)):
        counts, _ = np.histogram(answers.confidence_n[chosen], bins=edges)
        rows += [
            {"confidence": f"{edge:.2f}", "answer": name, "examples": int(count)}
            for edge, count in zip(edges[:-1], counts, strict=True)
        ]
    return rows


def mistake_table(answers: Answers, most: int) -> Table:
    """Return the wrong answers given with the most confidence, surest first."""
    wrong = np.flatnonzero(answers.labels_n != answers.predicted_n)
    confidence = answers.confidence_n
    ordered = sorted(wrong.tolist(), key=lambda i: (-confidence[i], answers.texts[i]))[:most]
    return [
        {
            "text": answers.texts[i],
            "intent": answers.intents[answers.labels_n[i]],
            "predicted": answers.intents[answers.predicted_n[i]],
            "confidence": round(float(confidence[i]), 4),
            "kind": answers.kinds[i],
        }
        for i in ordered
    ]


def confusion_matrix(answers: Answers) -> NDArray[np.int64]:
    """Return counts, (c, c): rows are true intents, columns predicted ones."""
    return confusion_counts(answers.labels_n, answers.predicted_n, len(answers.intents))
