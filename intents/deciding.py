"""From probabilities to answers: the one place where thresholds are applied.

Shapes: n texts, c intents.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intents.calibrations import Calibration

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


def softmax(logits_nc: Floats, temperature: float = 1.0) -> Floats:
    """Return the probabilities, (n, c), that `logits_nc` divided by `temperature` stand for."""
    shifted_nc = (logits_nc - logits_nc.max(axis=1, keepdims=True)) / temperature
    exponentials_nc = np.exp(shifted_nc)
    probabilities_nc: Floats = (exponentials_nc / exponentials_nc.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities_nc


def decide(probabilities_nc: Floats, intents: Sequence[str], calibration: Calibration) -> tuple[list[str], Floats]:
    """Return each text's answer and confidence.

    The likeliest intent wins, unless it is less likely than its threshold: then the answer is `calibration.reject`
    (None: the likeliest all the same). The confidence is the probability of the likeliest intent, rejected or not: it
    is what was held against the threshold.
    """
    labels_n = probabilities_nc.argmax(axis=1)
    likeliest = [intents[label] for label in labels_n]
    confidences_n = probabilities_nc[np.arange(len(probabilities_nc)), labels_n]
    reject = calibration.reject
    if reject is None:
        return likeliest, confidences_n
    sure_n = is_sure(likeliest, confidences_n, calibration)
    return [intent if sure else reject for intent, sure in zip(likeliest, sure_n, strict=True)], confidences_n


def is_sure(likeliest: Sequence[str], confidences: Sequence[float] | Floats, calibration: Calibration) -> Flags:
    """Return for each text whether its likeliest intent reaches its threshold, (n,)."""
    thresholds_n = np.array([calibration.thresholds.get(intent, 0.0) for intent in likeliest], dtype=np.float32)
    sure: Flags = np.asarray(confidences, dtype=np.float32) >= thresholds_n
    return sure


def acts(answers: Sequence[str], confidences: Sequence[float] | Floats, calibration: Calibration) -> list[bool]:
    """Return for each answer whether it is one to act on: not one that asks for nothing, and sure enough."""
    passive = {*calibration.no_action, calibration.reject}
    sure_n = is_sure(answers, confidences, calibration)
    return [bool(sure) and answer not in passive for answer, sure in zip(answers, sure_n, strict=True)]
