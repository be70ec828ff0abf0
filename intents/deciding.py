"""From probabilities to answers: the one place where thresholds are applied.

Shapes: n texts, c intents.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def softmax(logits_nc: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the probabilities, (n, c), that `logits_nc` divided by `temperature` stand for."""
    shifted_nc = (logits_nc - logits_nc.max(axis=1, keepdims=True)) / temperature
    exponentials_nc = np.exp(shifted_nc)
    return (exponentials_nc / exponentials_nc.sum(axis=1, keepdims=True)).astype(np.float32)


def decide(
    probabilities_nc: NDArray[np.float32], intents: Sequence[str], thresholds: Mapping[str, float], reject: str | None
) -> tuple[list[str], NDArray[np.float32]]:
    """Return each text's intent and confidence.

    The likeliest intent wins, unless it is less likely than its threshold: then the answer is `reject` (None: the
    likeliest all the same). The confidence is the probability of the likeliest intent, rejected or not: it is what was
    held against the threshold.
    """
    likeliest_n = probabilities_nc.argmax(axis=1)
    confidences_n = probabilities_nc[np.arange(len(probabilities_nc)), likeliest_n]
    threshold_c = np.array([thresholds.get(intent, 0.0) for intent in intents], dtype=np.float32)
    rejected_n = (confidences_n < threshold_c[likeliest_n]) & (reject is not None)
    answers = [
        str(reject) if rejected else intents[label] for label, rejected in zip(likeliest_n, rejected_n, strict=True)
    ]
    return answers, confidences_n
