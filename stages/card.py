"""Writes the model card from what the other stages found.

Reads models/{encoder/manifest.json,classifier,onnx/classifier.json}, data/prepared/*.parquet (for their hashes),
metrics/*.json and metrics/tables, writes models/card/README.md.

The card is a stage and an output of its own, though it describes models/classifier: test results come after training,
a stage must not write into another's output, and a changed wording must not retrain. `python -m apps.release FOLDER`
puts checkpoint, card and ONNX files together.

    python -m stages.card
"""

import csv
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from intents.calibrations import read_calibration
from intents.cli import run
from intents.exported import read_settings
from intents.files import sha256_of, write_text
from intents.params import Params, load_params, read_params

ENCODER_MANIFEST = Path("models/encoder/manifest.json")
CLASSIFIER_DIR = Path("models/classifier")
ONNX_DIR = Path("models/onnx")
PREPARED_DIR = Path("data/prepared")
METRICS_DIR = Path("metrics")
TABLES_DIR = Path("metrics/tables")
CARD_PATH = Path("models/card/README.md")
SPLITS = ("train", "validation", "test")
SETTINGS = ("encoder", "prepare", "tokenize", "train")  # sections that the card quotes
ALSO_READS = (*SETTINGS, "evaluate.confidence_level")  # beside its own section; dvc.yaml lists them


class CardParams(Params):
    """Section `card` of params.yaml."""

    title: str = Field(min_length=1)
    license: str = Field(min_length=1)
    languages: list[str]
    example: str = Field(min_length=1)


def main() -> None:
    """Run the stage."""
    params = load_params("card", CardParams)
    from intents.card import render_card

    encoder = json.loads(ENCODER_MANIFEST.read_text(encoding="utf-8"))
    page = render_card(params.title, params.license, params.languages, encoder, facts(params.example))
    write_text(CARD_PATH, page)
    print(f"{CARD_PATH} describes {CLASSIFIER_DIR}")


def facts(example: str) -> dict[str, Any]:
    """Return what the card says about this run."""
    prepare, train, evaluate, export = (_metrics(name) for name in ("prepare", "train", "evaluate", "export"))
    exported = read_settings(ONNX_DIR)
    all_params = read_params()
    return {
        "intents": exported.intents,
        "parameters": train["parameters"]["all"],
        "splits": [
            {
                "name": name,
                "rows": prepare["rows"][name],
                "sha256": sha256_of(PREPARED_DIR / f"{name}.parquet"),
            }
            for name in SPLITS
        ],
        "rows_per_intent": prepare["rows_per_intent"],
        "test": evaluate["test"],
        "confidence_level": all_params["evaluate"]["confidence_level"],
        "validation": train["validation"],
        "per_kind": _table("per_kind"),
        "per_intent": _table("per_intent"),
        "calibration": read_calibration(CLASSIFIER_DIR, exported.intents),
        "export": export,
        "max_length": exported.max_length,
        "checkpoint_sha256": exported.checkpoint_sha256,
        "best": train["best"],
        "precision": train["precision"],
        "settings": yaml.safe_dump({name: all_params[name] for name in SETTINGS}, sort_keys=False, allow_unicode=True),
        "example": example,
    }


def _metrics(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((METRICS_DIR / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _table(name: str) -> list[dict[str, str]]:
    with (TABLES_DIR / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    run(main)
