"""Whether an exported classifier still answers as the trained one does.

Shapes: n examples, c intents.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


def compare(labels_n: NDArray[np.int64], expected_nc: Logits, answers: list[Logits]) -> dict[str, Any]:
    """Return accuracy, agreement with the expected answers and the largest difference of a logit.

    `answers` are the same texts answered in different ways, such as one by one and in batches: an int8 product sets
    its scale by all texts of its batch. The worst of them counts.
    """
    predicted = [logits_nc.argmax(1) for logits_nc in answers]
    return {
        "accuracy": round(min(float((p == labels_n).mean()) for p in predicted), 4),
        "agreement": round(min(float((p == expected_nc.argmax(1)).mean()) for p in predicted), 4),
        "logit_difference": float(f"{max(float(np.abs(a - expected_nc).max()) for a in answers):.2g}"),
    }


def failures(
    found: dict[str, Any],
    expected_accuracy: float,
    min_agreement: float,
    max_accuracy_drop: float,
    max_logit_difference: float | None = None,
) -> list[str]:
    """Return a sentence for each limit that what `compare` found breaks; `max_accuracy_drop` is in points."""
    problems = []
    if found["agreement"] < min_agreement:
        problems.append(
            f"it agrees with PyTorch on {found['agreement']:.2%} of the validation texts, export.min_agreement is"
            f" {min_agreement:.2%}"
        )
    drop = 100 * (expected_accuracy - found["accuracy"])
    if drop > max_accuracy_drop + 1e-9:
        problems.append(
            f"accuracy falls from {expected_accuracy:.2%} to {found['accuracy']:.2%}, by {drop:.2f} points,"
            f" export.max_accuracy_drop is {max_accuracy_drop}"
        )
    if max_logit_difference is not None and not found["logit_difference"] <= max_logit_difference:
        problems.append(f"a logit differs by {found['logit_difference']}, at most {max_logit_difference} is allowed")
    return problems
