"""Puts the checkpoint together: the trained classifier, its calibration, and a model card of the run.

Reads models/{encoder/manifest.json,trained,calibration}, data/prepared/*.parquet (for their hashes), metrics/*.json and
metrics/tables, writes models/classifier.

The checkpoint is complete only here, since its card tells the test results; and no stage reads it, so that a changed
wording reruns this stage alone. It does not wait for the export: a classifier that int8 does not suit is one all the
same.

    python -m stages.card
"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from intents.calibrations import CALIBRATION_FILE, read_calibration
from intents.cli import run
from intents.files import atomic_path, sha256_of, write_text
from intents.params import OutOfScopeParams, Params, load_params, read_params

ENCODER_MANIFEST = Path("models/encoder/manifest.json")
TRAINED_DIR = Path("models/trained")
CALIBRATION_DIR = Path("models/calibration")
CLASSIFIER_DIR = Path("models/classifier")
PREPARED_DIR = Path("data/prepared")
METRICS_DIR = Path("metrics")
TABLES_DIR = Path("metrics/tables")
SPLITS = ("train", "validation", "test")
SETTINGS = ("encoder", "prepare", "tokenize", "train")  # sections that the card quotes
ALSO_READS = (*SETTINGS, "evaluate.confidence_level")  # beside its own section; dvc.yaml lists them


class CardParams(Params):
    """Section `card` of params.yaml."""

    title: str = Field(min_length=1)
    license: str = Field(min_length=1)
    languages: list[str]
    example: str = Field(min_length=1)


def check_settings() -> None:
    """Raise ValueError where the settings of this stage are wrong: `train` asks before it begins."""
    load_params("card", CardParams)


def main() -> None:
    """Run the stage."""
    params = load_params("card", CardParams)
    from intents.card import render_card

    encoder = json.loads(ENCODER_MANIFEST.read_text(encoding="utf-8"))
    dataset = Path(read_params()["prepare"]["source"]).stem.replace("_", "-")
    page = render_card(params.title, params.license, params.languages, encoder, dataset, facts(params.example))
    with atomic_path(CLASSIFIER_DIR, folder=True) as folder:
        shutil.copytree(TRAINED_DIR, folder)
        shutil.copyfile(CALIBRATION_DIR / CALIBRATION_FILE, folder / CALIBRATION_FILE)
        write_text(folder / "README.md", page)
    print(f"{CLASSIFIER_DIR} is complete, {CLASSIFIER_DIR / 'README.md'} describes it")


def facts(example: str) -> dict[str, Any]:
    """Return what the card says about this run."""
    prepare, train, evaluate = (_metrics(name) for name in ("prepare", "train", "evaluate"))
    config = json.loads((TRAINED_DIR / "config.json").read_text(encoding="utf-8"))
    intents = [config["id2label"][label] for label in sorted(config["id2label"], key=int)]
    all_params = read_params()
    calibration = read_calibration(CALIBRATION_DIR, intents, required=True)
    scope = load_params("prepare", OutOfScopeParams)
    return {
        "intents": intents,
        "parameters": train["parameters"]["all"],
        "splits": [
            {
                "name": name,
                "rows": prepare["rows"][name],
                "sha256": sha256_of(PREPARED_DIR / f"{name}.parquet"),
            }
            for name in SPLITS
        ],
        "unlabelled": _unlabelled(prepare, train),
        "rows_per_intent": prepare["rows_per_intent"],
        "test": evaluate["test"],
        "confidence_level": all_params["evaluate"]["confidence_level"],
        "validation": train["validation"],
        "per_kind": _table("per_kind"),
        "per_intent": _table("per_intent"),
        "calibration": calibration,
        # An intent that no training row has is answered by its threshold alone.
        "thresholds_count": scope.out_of_scope_use == "threshold" and scope.out_of_scope_intent == calibration.reject,
        "max_length": all_params["tokenize"]["max_length"],
        "checkpoint_sha256": sha256_of(TRAINED_DIR / "model.safetensors"),
        "best": train["best"],
        "precision": train["precision"],
        "settings": yaml.safe_dump({name: all_params[name] for name in SETTINGS}, sort_keys=False, allow_unicode=True),
        "example": example,
    }


def _unlabelled(prepare: dict[str, Any], train: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the card says about unlabelled texts, None where training had none."""
    if "self_training" not in train:
        return None
    return {
        "rows": prepare["unlabelled"]["rows"],
        "learnt": train["self_training"]["texts"],
        "before": train["self_training"]["validation_before"],
        "sha256": sha256_of(PREPARED_DIR / "unlabelled.parquet"),
    }


def _metrics(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((METRICS_DIR / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _table(name: str) -> list[dict[str, str]]:
    with (TABLES_DIR / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    run(main)
