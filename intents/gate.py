"""Whether an exported classifier still answers as the trained one does.

Shapes: n examples, c intents.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intents.calibrations import Calibration
from intents.deciding import acts, decide, softmax

Logits = NDArray[np.float32]


def compare(
    labels_n: NDArray[np.int64],
    expected_nc: Logits,
    found: Sequence[Logits],
    *,
    intents: Sequence[str],
    calibration: Calibration,
) -> dict[str, Any]:
    """Return accuracy, agreement with the expected answers, the largest difference of a logit, and false actions.

    `agreement` compares the likeliest intents, `answer_agreement` what is answered, temperature and thresholds applied:
    a confidence that moves across its threshold changes what a car does, and no likeliest intent. `false_actions` are
    the texts that ask for nothing and would be acted on.

    `found` are the same texts answered in different ways, such as one by one and in batches: some int8 products set
    their scale by all texts of a batch. The worst of them counts.
    """
    likeliest = [logits_nc.argmax(1) for logits_nc in found]
    expected, _ = _decide(expected_nc, intents, calibration)
    answers, acted = zip(*(_decide(logits_nc, intents, calibration) for logits_nc in found), strict=True)
    harmless_n = np.isin(labels_n, [label for label, name in enumerate(intents) if name in calibration.no_action])
    return {
        "accuracy": min(float((labels == labels_n).mean()) for labels in likeliest),
        "agreement": min(float((labels == expected_nc.argmax(1)).mean()) for labels in likeliest),
        "answer_agreement": min(float((answer == expected).mean()) for answer in answers),
        "logit_difference": float(f"{max(float(np.abs(a - expected_nc).max()) for a in found):.2g}"),
        "false_actions": max(int(acted_n[harmless_n].sum()) for acted_n in acted),
    }


def _decide(
    logits_nc: Logits, intents: Sequence[str], calibration: Calibration
) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """Return the answers, (n,), and whether each is acted on."""
    answers, confidences = decide(softmax(logits_nc, calibration.temperature), intents, calibration)
    return np.array(answers), np.array(acts(answers, confidences, calibration))


def failures(
    found: dict[str, Any],
    expected_accuracy: float,
    min_agreement: float,
    max_accuracy_drop: float,
    max_logit_difference: float | None = None,
) -> list[str]:
    """Return a sentence for each limit that what `compare` found breaks; `max_accuracy_drop` is in points."""
    problems = []
    for name, what in (("agreement", "likeliest intent"), ("answer_agreement", "answer, thresholds applied,")):
        if found[name] < min_agreement:
            problems.append(
                f"its {what} is PyTorch's on {found[name]:.3%} of the validation texts, export.min_agreement is"
                f" {min_agreement:.3%}"
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
