"""The calibration that may come with a trained classifier."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from intents.files import write_json

CALIBRATION_FILE = "calibration.json"
USUAL_REJECT = "no_intent"  # the bundled data's name for what asks for nothing; a calibration names its own
ABSTAIN = "abstain"  # the answer below a threshold where no intent stands for "do nothing"


@dataclass(frozen=True)
class Calibration:
    """What validation data says about a classifier's probabilities.

    Logits are divided by `temperature`. An answer whose probability is below its intent's threshold becomes `reject`,
    an intent or "abstain"; None rejects nothing. `no_action` are the intents that ask for nothing.
    """

    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    reject: str | None = None
    no_action: Sequence[str] = ()


def check_calibration(calibration: Calibration, intents: Sequence[str]) -> None:
    """Raise ValueError where `calibration` does not suit a classifier of `intents`.

    A threshold under another name would leave its intent without one, and every answer would pass.
    """
    if not 0 < calibration.temperature < float("inf"):
        raise ValueError(f"temperature must be a positive number, got {calibration.temperature}")
    rejects = [] if calibration.reject in (None, ABSTAIN) else [calibration.reject]
    unknown = {*calibration.thresholds, *calibration.no_action, *rejects} - set(intents)
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"names {names}, unknown to the classifier; it has: {', '.join(intents)}")


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write `calibration` to `folder`."""
    write_json(folder / CALIBRATION_FILE, asdict(calibration))


def read_calibration(folder: Path, intents: Sequence[str], required: bool = False) -> Calibration:
    """Return the calibration in `folder`; unless it is `required`, temperature 1 and no thresholds where there is none.

    Raises:
        ValueError: the file does not suit the classifier's `intents`, or is missing where it is `required`.

    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        if required:  # without thresholds a car would act on whatever is likeliest
            raise ValueError(f"{path} is missing: run `dvc repro calibrate`")
        return Calibration()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        temperature = float(found["temperature"])
        thresholds = {str(intent): float(least) for intent, least in found["thresholds"].items()}
        reject, no_action = found["reject"], tuple(str(intent) for intent in found["no_action"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no calibration ({type(error).__name__}: {error}): run `dvc repro` anew") from None
    calibration = Calibration(temperature, thresholds, reject, no_action)
    try:
        check_calibration(calibration, intents)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return calibration
