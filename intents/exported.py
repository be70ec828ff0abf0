"""What an exported folder (models/onnx) holds, and whether it is whole; the standard library alone."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intents.calibrations import Calibration, check_calibration
from intents.files import sha256_of

MODEL_FILES = {"fp32": "model.onnx", "int8": "model-int8.onnx"}
TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "classifier.json"


_KINDS: dict[str, type | tuple[type, ...]] = {
    "intents": list,
    "max_length": int,
    "pad_token_id": int,
    "temperature": (int, float),
    "thresholds": dict,
    "reject": (str, type(None)),
    "no_action": list,
    "checkpoint_sha256": str,
    "files": dict,
}


@dataclass(frozen=True)
class ExportSettings:
    """What classifier.json of an exported folder holds."""

    intents: list[str]
    max_length: int  # tokens
    pad_token_id: int
    temperature: float
    thresholds: dict[str, float]  # least confidence of an answer
    reject: str | None  # the answer below the threshold
    no_action: list[str]  # intents that ask for nothing
    checkpoint_sha256: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> bytes, sha256

    @property
    def calibration(self) -> Calibration:
        """Temperature and thresholds."""
        return Calibration(self.temperature, self.thresholds, self.reject, tuple(self.no_action))


def read_settings(folder: Path) -> ExportSettings:
    """Return what classifier.json in `folder` says.

    Raises:
        ValueError: there is no such file, or it is not one that the export stage wrote, or does not suit its intents.

    """
    path = folder / SETTINGS_FILE
    try:
        settings = ExportSettings(**json.loads(path.read_text(encoding="utf-8")))
        _check_kinds(settings)
        check_calibration(settings.calibration, settings.intents)
        return settings
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{folder} holds no exported classifier (no {SETTINGS_FILE}): run `dvc repro export`, or"
            " `dvc pull models/onnx`"
        ) from None
    except (ValueError, TypeError) as error:
        raise damaged(path, error) from None


def _check_kinds(settings: ExportSettings) -> None:
    for name, kind in _KINDS.items():
        value = getattr(settings, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} cannot be {value!r}")
    if not settings.intents or not all(isinstance(intent, str) for intent in settings.intents):
        raise ValueError(f"intents must be names, got {settings.intents!r}")
    if len(set(settings.intents)) < len(settings.intents):
        raise ValueError("two intents have the same name")
    if settings.max_length < 1 or settings.pad_token_id < 0:
        raise ValueError("max_length must be from 1 on, and pad_token_id from 0 on")
    for name, noted in settings.files.items():
        if not isinstance(noted, dict) or not {"bytes", "sha256"} <= noted.keys():
            raise ValueError(f"files must note bytes and sha256 of {name}, got {noted!r}")
    for intent, least in settings.thresholds.items():
        if not isinstance(least, int | float) or isinstance(least, bool) or not least >= 0:
            raise ValueError(f"the threshold of {intent} must be a number from 0 on, got {least!r}")


def check_file(path: Path, noted: dict[str, Any] | None, verify: bool) -> None:
    """Raise ValueError unless the file at `path` has the noted size and, with `verify`, the noted SHA-256."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro export`, or `dvc pull models/onnx`")
    if noted is None:
        raise damaged(path.with_name(SETTINGS_FILE), f"it does not list {path.name}")
    size = path.stat().st_size
    if size != noted["bytes"]:
        raise damaged(path, f"it has {size} bytes, {noted['bytes']} when it was exported")
    if verify and sha256_of(path) != noted["sha256"]:
        raise damaged(path, "its SHA-256 is not the one noted when it was exported")


def damaged(path: Path, reason: object) -> ValueError:
    """Return the error to raise for a file that is there and unusable."""
    return ValueError(f"{path} is damaged ({reason}): fetch it again with `dvc checkout --force` or copy it anew")
