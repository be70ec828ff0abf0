"""Repositories with a pipeline that runs in seconds, for tests of experiments and their comparison.

A plugin that a test module names in `pytest_plugins`, and imports from (PYTEST_DONT_REWRITE).
"""

import csv
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, WITHOUT_USERS_SETTINGS, made_once
from tests.tiny_encoder import write_bert

INTENTS = ("close_window", "no_intent", "open_window")
ENVIRONMENT = {
    **os.environ,
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
    "DVC_NO_ANALYTICS": "1",
    "PYTHONWARNINGS": "",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    **WITHOUT_USERS_SETTINGS,
}

# Answers a test row wrongly if a random number, drawn from the seed and moved by the quality, says so. The intervals
# are made up as well: intents.scoring would load scipy and scikit-learn, for seconds in each of many runs.
FAKE_EVALUATE = """
import pathlib
import random
import time

import yaml

from intents.files import write_json
from intents.tables import with_facts, write_table
from model import SHIFT

params = yaml.safe_load(open("params.yaml"))
intents = ["close_window", "no_intent", "open_window"]
rng = random.Random(params["train"]["seed"])
quality = float(params["train"]["quality"]) + SHIFT
if quality > 1:
    raise SystemExit(f"train.quality {quality} is more than 1")
import numpy as np
import pyarrow as pa

time.sleep(params["train"]["seconds"])
rows = range(params["prepare"]["rows"])
labels = np.array([i % 3 for i in rows])
predicted = np.array([i % 3 if rng.random() < quality else (i + 1) % 3 for i in rows])
schema = pa.schema(
    [("row", pa.int64()), *((n, pa.string()) for n in ("text", "intent", "kind", "predicted")),
     ("confidence", pa.float32()), ("logits", pa.list_(pa.float32()))]
)
columns = {
    "row": list(rows),
    "text": [f"text {i}" for i in rows],
    "intent": [intents[i] for i in labels],
    "kind": ["plain" for _ in rows],
    "predicted": [intents[i] for i in predicted],
    "confidence": [rng.random() for _ in rows],
    "logits": [[float(i == p) for i in range(3)] for p in predicted],
}
write_table(pathlib.Path("data/predictions/test.parquet"), columns, with_facts(schema, intents=intents))
share = int((labels == predicted).sum()) / len(rows)
interval = [round(max(0, share - 0.05), 4), round(min(1, share + 0.05), 4)]
test = {
    "accuracy": round(share, 4),
    "macro_f1": round(share, 4),
    "log_loss": round(1 - share, 4),
    "accuracy_interval": interval,
    "macro_f1_interval": interval,
    "examples": len(rows),
}
write_json(pathlib.Path("metrics/evaluate.json"), {"test": test})
"""
FAKE_PIPELINE = {
    "stages": {
        "evaluate": {
            "cmd": "python evaluate.py",
            "deps": ["evaluate.py", "model.py"],
            "params": ["prepare", "train"],
            "outs": ["data/predictions/test.parquet"],
            "metrics": [{"metrics/evaluate.json": {"cache": False}}],
        }
    }
}
FAKE_PARAMS = {
    "prepare": {"rows": 300},
    "train": {"quality": 0.8, "seed": 0, "seconds": 0},
    "tracking": {"report_to": "none"},
}


def run(folder: Path, *command: str, fails: bool = False) -> str:
    """Run a command in `folder`; return what it printed.

    Output goes to a file: the workers that `dvc queue start` leaves behind would keep a pipe open until they end.
    """
    if command[0] in ("dvc", "apps.compare"):
        command = ("python", "-m", *command)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        done = subprocess.run(
            command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, timeout=300
        )
        output.seek(0)
        printed = output.read()
    assert (done.returncode != 0) == fails, f"{command}\n{printed}"
    return printed


def make_repository(folder: Path) -> Path:
    """Make a Git and DVC repository in `folder` with this project's packages, and nothing run yet."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("apps", "intents", "stages"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    for name in (".gitignore", ".gitattributes", ".dvcignore"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "config", "core.analytics", "false")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit everything that Git does not ignore."""
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", message)


def change_params(folder: Path, **sections: dict[str, object]) -> None:
    """Change settings in params.yaml."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in sections.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="session")
def fake_repository(shared_folder: Path) -> Path:
    """A repository whose one stage makes up its predictions, run and committed. Copy it, never write into it."""
    return made_once(shared_folder / "fake-repository", _make_fake_repository)


def _make_fake_repository(folder: Path) -> None:
    make_repository(folder)
    (folder / "evaluate.py").write_text(FAKE_EVALUATE, encoding="utf-8")
    (folder / "model.py").write_text("SHIFT = 0\n", encoding="utf-8")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(FAKE_PIPELINE), encoding="utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(FAKE_PARAMS), encoding="utf-8")
    with (folder / ".gitignore").open("a", encoding="utf-8") as file:
        file.write("/comparison.*\n")
    run(folder, "dvc", "repro", "-q")
    commit(folder, "baseline")


def make_tiny_repository(folder: Path) -> Path:
    """Make a repository with this project's own pipeline on a tiny encoder and 90 texts, run, committed."""
    make_repository(folder)
    write_bert(folder / "data" / "encoder", [*"open the window close it now music".split(), *"abcdefghij"])
    (folder / "data" / "none").write_text("none\n", encoding="utf-8")
    with (folder / "data" / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "intent"])
        for number in range(30):
            letters = " ".join("abcdefghij"[int(digit)] for digit in f"{number * 7919 % 100_000:05d}")
            writer.writerow([f"open the window {letters}", "open_window"])
            writer.writerow([f"close it now {letters[::-1]}", "close_window"])
            writer.writerow([f"{letters} music {letters}", "no_intent"])
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    change_params(
        folder,
        encoder={"name": "data/encoder"},
        prepare={"source": "data/texts.csv", "exclude_intents": [], "near_duplicate_threshold": 1.0},
        tokenize={"max_length": 20},
        train={"num_epochs": 1, "min_steps": 0, "batch_size": 16, "precision": "fp32"},
        tracking={"report_to": "none"},
        evaluate={"bootstrap_samples": 100, "behaviour_pairs": "data/none"},
    )
    run(folder, "dvc", "repro", "-q")
    commit(folder, "baseline")
    return folder
