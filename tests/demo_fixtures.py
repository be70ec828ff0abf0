"""A small DVC repository with classifiers that know a few words, and the demo serving it.

A plugin that a test module names in `pytest_plugins`, and imports from (PYTEST_DONT_REWRITE).
"""

import json
import logging
import os
import socket
import subprocess
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from apps.demo.limits import Limits
from intents.calibrations import Calibration
from intents.tables import with_facts, write_table
from tests.conftest import WITHOUT_USERS_SETTINGS, made_once
from tests.tiny_encoder import make_tokenizer

INTENTS = ["driver_window_down", "no_intent", "windshield_wipers_on"]
SPOKEN = [
    ("open my window", 0),
    ("lower my window please", 0),
    ("open the window now", 0),
    ("tell me a story", 1),
    ("call my mother", 1),
    ("the window is open", 1),
    ("start the wipers", 2),
    ("run the wipers please", 2),
    ("wipers on now", 2),
]
UNSURE = "open the window now"
TITLE, EXAMPLE, COLUMN = "What is <said>?", "it's dark & I'm <cold>", {"text_column": "said"}
CODE = Path(__file__).parents[1]
LIMITS = Limits(characters=100, upload_bytes=1 << 20, rows=20, concurrency=1, queue=100)


def make_classifier(folder: Path, intents: Sequence[str]) -> None:
    """Write a classifier that answers the SPOKEN texts with `intents` by their labels."""
    import torch
    import transformers
    from transformers import BertConfig

    from intents.classifier import IntentClassifier, IntentClassifierConfig

    words = sorted({word for text, _ in SPOKEN for word in text.split()})
    tokenizer = make_tokenizer(words, max_length=32)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    model = IntentClassifier(
        IntentClassifierConfig(
            encoder=encoder,
            id2label=dict(enumerate(intents)),
            label2id={name: i for i, name in enumerate(intents)},
        )
    )
    batch = tokenizer([text for text, _ in SPOKEN], padding=True, return_tensors="pt")
    labels = torch.tensor([label for _, label in SPOKEN])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_predictions(path: Path, num_right: int, **facts: object) -> None:
    """Write answers to the SPOKEN texts of which the first `num_right` are right, the others no_intent.

    UNSURE is not sure enough of the likeliest intent.
    """
    true = [INTENTS[label] for _, label in SPOKEN]
    predicted = [intent if i < num_right else "no_intent" for i, intent in enumerate(true)]
    count = len(SPOKEN)
    columns = {
        "row": pa.array(range(count), pa.int32()),
        "text": [text for text, _ in SPOKEN],
        "intent": true,
        "kind": [f"kind {i % 2}" if intent == "no_intent" else "plain" for i, intent in enumerate(true)],
        "predicted": predicted,
        "answer": [
            "no_intent" if text == UNSURE else intent for (text, _), intent in zip(SPOKEN, predicted, strict=True)
        ],
        "confidence": pa.array([0.9] * count, pa.float32()),
    }
    fields = [(name, column.type if isinstance(column, pa.Array) else pa.string()) for name, column in columns.items()]
    write_table(path, columns, with_facts(pa.schema(fields), intents=INTENTS, **facts))


@pytest.fixture(scope="session")
def demo_repository(shared_folder: Path) -> Path:
    """The repository, made once in a run of the tests. Never write into it."""
    return made_once(shared_folder / "demo-repository", make_repository)


def make_repository(root: Path) -> None:
    """Make a repository: tag `swapped` answers with other intents, experiment `careful` is calibrated to ask again.

    The ONNX variants in its workspace are calibrated to act from 60 % on.
    """
    from dvc.repo import Repo

    from tests.export_fixtures import write_exported

    classifier, predictions = root / "models/classifier", root / "data/predictions/test.parquet"
    # DVC's log goes to what was stdout when it was imported, which may be the closed one of a test before.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    root.mkdir()
    git(root, "init", "-q")
    for name, value in (
        ("user.name", "Tester"),
        ("user.email", "tester@example.org"),
        ("commit.gpgsign", "false"),
    ):
        git(root, "config", name, value)
    (root / ".gitignore").write_text("/.cache/\n/models/onnx/\n")
    (root / "params.yaml").write_text(json.dumps({"card": {"title": TITLE, "example": EXAMPLE}, "prepare": COLUMN}))
    make_classifier(classifier, INTENTS)
    sixty = Calibration(1.0, dict.fromkeys(INTENTS, 0.6), "no_intent", ("no_intent",))
    write_exported(classifier, root / "models/onnx", sixty)
    config = (classifier / "config.json").read_text()
    with (
        warnings.catch_warnings(action="ignore"),
        Repo.init(str(root)) as repo,
    ):  # DVC's own dependencies warn

        def track() -> None:
            repo.add([str(classifier), str(predictions)])
            git(root, "add", "-A")
            git(root, "commit", "-q", "-m", "classifier and predictions")

        first, last = f'"{INTENTS[0]}"', f'"{INTENTS[2]}"'
        swapped = config.replace(first, "FIRST").replace(last, first).replace("FIRST", last)
        (classifier / "config.json").write_text(swapped)
        make_predictions(predictions, num_right=6)
        track()
        git(root, "tag", "swapped")

        (classifier / "config.json").unlink()
        (classifier / "config.json").write_text(config)
        make_predictions(predictions, num_right=8)
        track()

        calibration = {
            "temperature": 2.0,
            "thresholds": dict.fromkeys(INTENTS, 0.9999),
            "reject": "no_intent",
            "no_action": ["no_intent"],
        }
        (classifier / "calibration.json").write_text(json.dumps(calibration))
        repo.add([str(classifier)])
        repo.experiments.save(name="careful")
        git(root, "checkout", "-q", "--", ".")
        repo.checkout(force=True)


def git(folder: Path, *arguments: str) -> None:
    """Run Git in `folder`."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(arguments)}\n{done.stdout}{done.stderr}"


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a child process: this checkout's code, nothing of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ours = {"PYTHONPATH": str(CODE), "DVC_NO_ANALYTICS": "true", "HF_HUB_OFFLINE": "1"}
    return kept | WITHOUT_USERS_SETTINGS | ours | more


@contextmanager
def recording_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a proxy that answers nothing, and the list of what was asked of it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def record() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1000))

        thread = threading.Thread(target=record, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@contextmanager
def serving(root: Path, *options: str, **variables: str) -> Iterator[str]:
    """Yield the address of `python -m apps.demo`, run in `root` on a free port."""
    command = ["python", "-m", "apps.demo", "--port", "0", *options]
    log_path = root.parent / f"demo-{os.getpid()}.log"  # other workers of pytest-xdist serve it, too
    with (
        log_path.open("w") as log,
        subprocess.Popen(
            command, cwd=root, env=environment(**variables), stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert "http://" in line, log_path.read_text()
            yield line.split()[4]
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    log = log_path.read_text()
    # gradio logs each path that it refuses, and each URL that it cannot fetch.
    refused = log.count("InvalidPathError: ") + log.count("Exception: Failed to download file. Status code: 403")
    assert log.count("Traceback") == refused, log
