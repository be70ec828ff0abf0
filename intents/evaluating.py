"""What a classifier's answers to the test split are worth: numbers, tables and the rows of plots."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intents.answers import Answers, Flags
from intents.calibrations import ABSTAIN
from intents.ladder import FINE_TUNED, WITH_THRESHOLDS
from intents.listing import listed
from intents.scoring import (
    averaged_metrics,
    confusion_counts,
    macro_f1_interval,
    per_label_metrics,
    rounded,
    share_interval,
)
from intents.trust import action_metrics, probability_metrics, selective_metrics

_HISTOGRAM_BINS = 20
_MOST_NAMED = 10  # intents in a sentence
Table = list[dict[str, Any]]


def headline(answers: Answers, confidence_level: float, num_samples: int, seed: int) -> dict[str, Any]:
    """Return the few numbers that experiments are compared by; intervals are lists, which `dvc exp show` leaves out.

    Accuracy and macro-F1 judge the likeliest intents: a threshold hangs on a handful of validation texts, and would
    hide the difference between two classifiers. What is acted on, with thresholds, has numbers of its own. Examples of
    an intent that is no answer, out-of-scope ones that only set the threshold, have these alone.
    """
    judged = answers.answerable
    labels, predicted, num_labels = judged.labels_n, judged.likeliest.predicted_n, len(answers.intents)
    right = int((labels == predicted).sum())
    found = {
        "accuracy": right / len(labels),
        "macro_f1": averaged_metrics(labels, predicted, num_labels)["macro"]["f1"],
        **probability_metrics(answers),
        **action_metrics(answers, confidence_level),
        **(selective_metrics(answers) if ABSTAIN in answers.names else {}),
        "accuracy_interval": share_interval(right, len(labels), confidence_level),
        "macro_f1_interval": macro_f1_interval(labels, predicted, num_labels, confidence_level, num_samples, seed),
        "examples": len(labels),
    }
    return {"test": rounded(found)}


def average_table(answers: Answers) -> Table:
    """Return precision, recall and F1 under each averaging."""
    answers = answers.answerable
    averages = averaged_metrics(answers.labels_n, answers.predicted_n, len(answers.intents))
    return [rounded({"average": name, **scores}) for name, scores in averages.items()]


def intent_table(answers: Answers) -> Table:
    """Return precision, recall, F1 and number of test examples per intent."""
    answers = answers.answerable
    scores = zip(
        answers.intents, per_label_metrics(answers.labels_n, answers.predicted_n, len(answers.intents)), strict=True
    )
    return [rounded({"intent": intent, **row}) for intent, row in scores if intent not in answers.never]


def kind_table(answers: Answers, confidence_level: float) -> Table:
    """Return accuracy with its exact interval per kind of example; empty where the data has no kinds."""
    answers = answers.answerable
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
        {"actual": answers.intents[label], "predicted": answers.names[predicted]}
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
    answers = answers.answerable
    confidence, likeliest = answers.confidence_n, answers.probabilities_nc.argmax(1)
    return [
        {
            "text": answers.texts[i],
            "intent": answers.intents[answers.labels_n[i]],
            "predicted": answers.names[answers.predicted_n[i]],
            "likeliest": answers.intents[likeliest[i]],  # another one where it is less sure than its threshold
            "confidence": round(float(confidence[i]), 4),
            "kind": answers.kinds[i],
        }
        for i in _first(answers, answers.labels_n != answers.predicted_n, -confidence, most)
    ]


def _first(answers: Answers, chosen_n: Flags, order_n: NDArray[np.float32], most: int) -> list[int]:
    """Return at most so many of the chosen examples, in ascending order of `order_n`, those that tie by text."""
    return sorted(np.flatnonzero(chosen_n).tolist(), key=lambda i: (order_n[i], answers.texts[i]))[:most]


def wrong_texts(answers: Answers, most: int) -> dict[str, Table]:
    """Return the texts that went wrong, at most so many of each sort, the worst first.

    `mistakes` are those of `mistake_table` for the likeliest intents; `false_action_texts` ask for nothing and would be
    acted on; `refused_texts` ask for something and are not obeyed. The latter two are empty where no text asks for
    nothing.
    """
    found: dict[str, Table] = {"mistakes": mistake_table(answers.likeliest, most)}
    harmless_n, wrong_n = answers.harmless_n, answers.predicted_n != answers.labels_n
    true_n = answers.probabilities_nc[np.arange(len(wrong_n)), answers.labels_n]
    sorts = {
        "false_action_texts": (harmless_n & answers.acted_n, -answers.confidence_n),
        "refused_texts": (~harmless_n & wrong_n & bool(harmless_n.any()), true_n),
    }
    for name, (chosen_n, order_n) in sorts.items():
        found[name] = [
            {
                "text": answers.texts[i],
                "intent": answers.intents[answers.labels_n[i]],
                "answer": answers.names[answers.predicted_n[i]],
                "probability": float(true_n[i]),
                "confidence": float(answers.confidence_n[i]),
                "kind": answers.kinds[i],
            }
            for i in _first(answers, chosen_n, order_n, most)
        ]
    return found


def cautions(ladder: Table, per_intent: Table) -> list[str]:
    """Return what a user must know first of a classifier that has hardly learnt anything; most often nothing."""
    accuracy = {row["rung"]: row["accuracy"] for row in ladder}
    fine_tuned = accuracy[FINE_TUNED]
    simpler = {name: accuracy[name] for name in accuracy if name not in (FINE_TUNED, WITH_THRESHOLDS)}
    better = [f"{name} ({share:.3f})" for name, share in simpler.items() if share >= fine_tuned]
    never = [row["intent"] for row in per_intent if row["support"] and not row["precision"] and not row["recall"]]
    found = []
    if better:
        found.append(
            f"Fine-tuning did not pay: an accuracy of {fine_tuned:.3f} is no more than that of {', '.join(better)}."
        )
    if never:
        found.append(f"Never rightly answered: {listed(never, _MOST_NAMED)}.")
    return found


def confusion_matrix(answers: Answers) -> NDArray[np.int64]:
    """Return counts, (c, c), or (c, c + 1) with a column "abstain": rows are true intents, columns answers."""
    return confusion_counts(answers.labels_n, answers.predicted_n, len(answers.intents), len(answers.names))
