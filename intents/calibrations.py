"""The calibration that may come with a trained classifier."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """What validation data says about a classifier's probabilities.

    Logits are divided by `temperature`. An answer whose probability is below its intent's threshold becomes `reject`;
    None rejects nothing.
    """

    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    reject: str | None = None


def read_calibration(classifier_dir: Path, intents: Sequence[str]) -> Calibration:
    """Return the calibration in `classifier_dir`; temperature 1 and no thresholds where there is none.

    Raises:
        ValueError: the file is there, but does not suit the classifier's `intents`.

    """
    path = classifier_dir / CALIBRATION_FILE
    if not path.is_file():
        return Calibration()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        temperature = float(found["temperature"])
        thresholds = {str(intent): float(least) for intent, least in found["thresholds"].items()}
        reject = found.get("reject")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no calibration ({type(error).__name__}: {error}): run `dvc repro` anew") from None
    if not 0 < temperature < float("inf"):
        raise ValueError(f"{path}: temperature must be a positive number, got {temperature}")
    unknown = sorted({*thresholds, *([reject] if reject is not None else [])} - set(intents))
    if unknown:
        raise ValueError(f"{path} names {', '.join(unknown)}, unknown to the classifier; it has: {', '.join(intents)}")
    return Calibration(temperature, thresholds, reject)
