"""A tiny classifier with random weights, and ways to run the command on it."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from apps import predict
from intents.bulk.torch_scoring import TorchScorer
from intents.calibrations import Calibration
from intents.classifier import build_classifier
from intents.deciding import softmax
from tests.conftest import made_once
from tests.tiny_encoder import write_bert

REPOSITORY = Path(__file__).resolve().parents[1]
INTENTS = ["lights", "no_intent", "window"]
WORDS = "open close my the window door please turn on off light music seat it now is cold warm".split()


def make_classifier(folder: Path, seed: int = 0) -> Path:
    """Write a random classifier of INTENTS (1 layer, 16 wide, 32 tokens) whose answers vary with the text."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "max_position_embeddings": 32}
    tokenizer = write_bert(folder / "encoder", WORDS, seed=seed, initializer_range=1.0, **sizes)
    model = build_classifier(folder / "encoder", INTENTS, "mean", 10.0)
    torch.nn.init.normal_(model.classifier.weight, std=0.1)
    model.save_pretrained(folder / "classifier")
    tokenizer.save_pretrained(folder / "classifier")
    return folder / "classifier"


@pytest.fixture(scope="session")
def classifier(shared_folder):
    """Folder of a tiny classifier. Never write into it."""
    return made_once(shared_folder / "predict", make_classifier) / "classifier"


@pytest.fixture(scope="session")
def exported(classifier, shared_folder):
    """Folder of the tiny classifier as an fp32 ONNX graph, with thresholds that reject some answers.

    A process that answers with it need not import torch: 1 CPU second in place of 8. Never write into it.
    """
    from tests.export_fixtures import write_exported

    def make(folder):
        probabilities = softmax(np.log(TorchScorer(classifier).probabilities(texts_of(300))), 2.0)
        threshold = float(np.median(probabilities.max(axis=1)))  # rejects about half of the answers
        thresholds = dict.fromkeys(("lights", "window"), threshold)
        write_exported(classifier, folder, Calibration(2.0, thresholds, "no_intent", ("no_intent",)), ["fp32"])

    return made_once(shared_folder / "predict-exported", make)


def texts_of(number: int) -> list[str]:
    """Return `number` texts, all different, of 2 to 20 words."""
    return [
        " ".join([WORDS[(row * 7 + word * word) % len(WORDS)] for word in range(2 + row % 19)]) + f" {row}"
        for row in range(number)
    ]


def answer(*arguments: object) -> None:
    """Run the command in this process."""
    predict.predict(predict.parse_arguments([*map(str, arguments)]))


def command(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Run the command as its users do."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **options.pop("env", {}), "PYTHONPATH": str(REPOSITORY)}
    line = ["python", "-m", "apps.predict", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, env=environment, timeout=120, check=False, **options)


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    """Write one object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict]:
    """Read one object per line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
