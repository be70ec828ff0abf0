"""The ladder: the fine-tuned classifier above those that need no fine-tuning, on the same test rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from intents.answers import Answers, Labels
from intents.scoring import averaged_metrics, macro_f1_interval, rounded, share_interval

Table = list[dict[str, Any]]
FINE_TUNED = "fine_tuned"
WITH_THRESHOLDS = "fine_tuned_with_thresholds"


def ladder_table(
    answers: Answers, baselines: Mapping[str, Sequence[str]], confidence_level: float, num_samples: int, seed: int
) -> Table:
    """Return accuracy and macro-F1 with their intervals per rung, from the lowest.

    `baselines` are answers (names of intents) to the same rows. They know no thresholds, so the rung to compare them
    with is the classifier's likeliest intent; what it answers with its thresholds is a rung of its own. As in the
    headline, rows whose intent can be no answer do not count.
    """
    label_of = {intent: label for label, intent in enumerate(answers.intents)}
    rungs = {name: np.array([label_of[intent] for intent in found]) for name, found in baselines.items()}
    rungs[FINE_TUNED] = answers.probabilities_nc.argmax(1)
    if answers.calibration.thresholds:
        rungs[WITH_THRESHOLDS] = answers.predicted_n
    return [
        rounded({"rung": name, **_scores(answers, predicted_n, confidence_level, num_samples, seed)})
        for name, predicted_n in rungs.items()
    ]


def _scores(
    answers: Answers, predicted_n: Labels, confidence_level: float, num_samples: int, seed: int
) -> dict[str, float]:
    judged_n = np.stack([answers.labels_n, predicted_n])[:, answers.answerable_n]
    labels_n, predicted_n, num_labels = *judged_n, len(answers.intents)
    right = int((labels_n == predicted_n).sum())
    low, high = share_interval(right, len(labels_n), confidence_level)
    f1_low, f1_high = macro_f1_interval(labels_n, predicted_n, num_labels, confidence_level, num_samples, seed)
    return {
        "accuracy": right / len(labels_n),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": averaged_metrics(labels_n, predicted_n, num_labels)["macro"]["f1"],
        "macro_f1_low": f1_low,
        "macro_f1_high": f1_high,
    }
