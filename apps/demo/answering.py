"""A classifier's answer as a person wants it: what the car would do with it, and why.

Shapes: n texts, c intents.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apps.demo.catalogue import Loaded

Action = Literal["act", "ask", "leave"]
_USUAL_REJECT = "no_intent"  # the bundled data's name for what asks nothing of the car; a calibration names its own


@dataclass(frozen=True)
class Policy:
    """Which answers a car acts on: those at least as probable as their intent's threshold, and not `reject`."""

    thresholds: dict[str, float]
    reject: str | None

    def action(self, intent: str, confidence: float) -> Action:
        """Return what the car would do."""
        if confidence < self.thresholds[intent]:
            return "ask"
        return "leave" if intent == self.reject else "act"


@dataclass(frozen=True)
class Answer:
    """One classifier's answer to one text."""

    classifier: str
    intent: str
    confidence: float
    action: Action
    why: str
    probabilities: dict[str, float]
    thresholds: dict[str, float]
    calibration: str
    latency_ms: float


def policy_of(loaded: Loaded, default_threshold: float) -> Policy:
    """Return the calibration's thresholds, or `default_threshold` for every intent of an uncalibrated classifier."""
    intents = loaded.scorer.intents
    if loaded.is_calibrated:
        thresholds = {intent: float(loaded.scorer.thresholds.get(intent, 0.0)) for intent in intents}
        return Policy(thresholds, loaded.scorer.reject)
    return Policy(dict.fromkeys(intents, default_threshold), _USUAL_REJECT if _USUAL_REJECT in intents else None)


def answer(loaded: Loaded, text: str, default_threshold: float) -> Answer:
    """Return the answer to one text, timed from text to probabilities."""
    started = time.perf_counter()
    probabilities_c = loaded.scorer.probabilities([text])[0]
    latency_ms = 1000 * (time.perf_counter() - started)
    intents = loaded.scorer.intents
    policy = policy_of(loaded, default_threshold)
    intent, confidence = intents[int(probabilities_c.argmax())], float(probabilities_c.max())
    action = policy.action(intent, confidence)
    by_probability = np.argsort(-probabilities_c, kind="stable").tolist()
    return Answer(
        classifier=loaded.name,
        intent=intent,
        confidence=confidence,
        action=action,
        why=_why(action, intent, confidence, policy.thresholds[intent]),
        probabilities={intents[label]: float(probabilities_c[label]) for label in by_probability},
        thresholds=policy.thresholds,
        calibration=_describe_calibration(loaded, default_threshold),
        latency_ms=latency_ms,
    )


def answer_many(loaded: Loaded, texts: Sequence[str], default_threshold: float) -> list[tuple[str, float, Action]]:
    """Return (intent, confidence, action) for each text."""
    policy, intents = policy_of(loaded, default_threshold), loaded.scorer.intents
    probabilities_nc: NDArray[np.float32] = loaded.scorer.probabilities(texts)
    found = []
    for row_c in probabilities_nc:
        intent, confidence = intents[int(row_c.argmax())], float(row_c.max())
        found.append((intent, confidence, policy.action(intent, confidence)))
    return found


def _why(action: Action, intent: str, confidence: float, threshold: float) -> str:
    sure, needed = f"{100 * confidence:.1f} %", f"{100 * threshold:.4g} %"
    if action == "ask":
        return f"It is only {sure} sure, and {intent} needs {needed}."
    if action == "leave":
        return f"It is {sure} sure that this asks nothing of it (at least {needed} is needed)."
    return f"It is {sure} sure, and {intent} needs {needed}."


def _describe_calibration(loaded: Loaded, default_threshold: float) -> str:
    if loaded.is_calibrated:
        return "Calibrated: probabilities and thresholds were fitted on validation data."
    return (
        "Not calibrated: plain softmax, and the same threshold for every intent"
        f" ({100 * default_threshold:.0f} %, --threshold)."
    )
