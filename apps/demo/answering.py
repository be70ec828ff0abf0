"""A classifier's answer as a person wants it: what to do with it, and why.

Shapes: n texts, c intents.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apps.demo.catalogue import Loaded
from intents.calibrations import ABSTAIN, USUAL_REJECT, Calibration
from intents.deciding import acts, decide, is_sure

Action = Literal["act", "ask", "leave"]


@dataclass(frozen=True)
class Answer:
    """One classifier's answer to one text."""

    classifier: str
    intent: str  # thresholds applied
    likeliest: str
    confidence: float  # of the likeliest intent
    action: Action
    why: str
    probabilities: dict[str, float]
    thresholds: dict[str, float]
    calibration: str
    latency_ms: float


def calibration_of(loaded: Loaded, default_threshold: float) -> Calibration:
    """Return the classifier's calibration, or `default_threshold` for every intent of an uncalibrated one."""
    if loaded.is_calibrated:
        return loaded.scorer.calibration
    intents = loaded.scorer.intents
    passive = tuple(intent for intent in intents if intent == USUAL_REJECT)
    return Calibration(1.0, dict.fromkeys(intents, default_threshold), (passive or (ABSTAIN,))[0], passive)


def action_of(likeliest: str, confidence: float, calibration: Calibration) -> Action:
    """Return what to do: act, ask again, or nothing."""
    if not is_sure([likeliest], [confidence], calibration)[0]:
        return "ask"
    return "act" if acts([likeliest], [confidence], calibration)[0] else "leave"


def answer(loaded: Loaded, text: str, default_threshold: float) -> Answer:
    """Return the answer to one text, timed from text to probabilities."""
    started = time.perf_counter()
    probabilities_c = loaded.scorer.probabilities([text])[0]
    latency_ms = 1000 * (time.perf_counter() - started)
    intents = loaded.scorer.intents
    calibration = calibration_of(loaded, default_threshold)
    (intent,), _ = decide(probabilities_c[None], intents, calibration)
    likeliest, confidence = intents[int(probabilities_c.argmax())], float(probabilities_c.max())
    action = action_of(likeliest, confidence, calibration)
    thresholds = {name: calibration.thresholds.get(name, 0.0) for name in intents}
    by_probability = np.argsort(-probabilities_c, kind="stable").tolist()
    return Answer(
        classifier=loaded.name,
        intent=intent,
        likeliest=likeliest,
        confidence=confidence,
        action=action,
        why=_why(action, likeliest, confidence, thresholds[likeliest]),
        probabilities={intents[label]: float(probabilities_c[label]) for label in by_probability},
        thresholds=thresholds,
        calibration=_describe_calibration(loaded, default_threshold),
        latency_ms=latency_ms,
    )


def answer_many(loaded: Loaded, texts: Sequence[str], default_threshold: float) -> list[tuple[str, float, Action]]:
    """Return (intent, confidence, action) for each text."""
    calibration, intents = calibration_of(loaded, default_threshold), loaded.scorer.intents
    probabilities_nc: NDArray[np.float32] = loaded.scorer.probabilities(texts)
    answers, confidences = decide(probabilities_nc, intents, calibration)
    likeliest, _ = decide(probabilities_nc, intents, Calibration())
    return [
        (intent, float(confidence), action_of(name, float(confidence), calibration))
        for intent, confidence, name in zip(answers, confidences, likeliest, strict=True)
    ]


def _why(action: Action, intent: str, confidence: float, threshold: float) -> str:
    sure, needed = (f"{round(100 * share, 2):g} %" for share in (confidence, threshold))
    if threshold > 1:
        return (
            f"It is only {sure} sure, and no answer is sure enough for {intent}: too few validation texts showed when."
        )
    if action == "ask":
        return f"It is only {sure} sure, and {intent} needs {needed}."
    if action == "leave":
        return f"It is {sure} sure that this asks nothing of it."
    if threshold <= 0:
        return f"It is {sure} sure, and nothing sets a threshold for {intent}."
    return f"It is {sure} sure, and {intent} needs {needed}."


def _describe_calibration(loaded: Loaded, default_threshold: float) -> str:
    if loaded.is_calibrated:
        return "Calibrated: probabilities and thresholds were fitted on validation data."
    return (
        "Not calibrated: plain softmax, and the same threshold for every intent"
        f" ({100 * default_threshold:.0f} %, --threshold)."
    )
