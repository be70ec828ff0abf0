"""Several processes train together, on the CPU: the result is that of one, and they start and end as one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from safetensors.torch import load_file

from intents import trainer
from intents.params import read_params
from stages import train as stage
from tests.conftest import REPOSITORY
from tests.training_fixtures import write_split

pytest_plugins = ["tests.training_fixtures"]
EVERY_STEP_S = 1e-9


@pytest.fixture
def inputs(stage_inputs):
    """The inputs, for steps of 2 parts of 3 or 4 texts; returns what changes settings."""
    settings = {"num_epochs": 2, "gradient_accumulation": 2, "class_weights": "balanced", "dropout": 0.0}
    stage_inputs("train", learning_rate=1e-3, **settings)
    return stage_inputs


@pytest.fixture
def start():
    """Return a function that starts a command with what it needs to import this repository; ends all it left.

    A warm one is forked from a Python that has imported already, where there is one, and buffers what it prints.
    """
    started = []

    def start_one(*command, folder=".", warm=False):
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        python = ["python"] if warm else [sys.executable, "-u"]
        process = subprocess.Popen([*python, *command], cwd=folder, env=environment, **pipes)
        started.append(process)
        return process

    yield start_one
    for process in started:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.communicate()


def finish(process):
    """Wait for a command that must succeed; return what it printed."""
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stdout + stderr
    return stdout


def workers_in_training(process):
    """Wait until training has begun; return the processes that train."""
    for line in process.stdout:
        if line.startswith("train:"):
            break
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2, process.stderr.read()
    return workers


def validation_of(folder="."):
    """Return the curves without the names of their columns, and the headline metrics."""
    rows = Path(folder, "metrics/plots/training.csv").read_text().splitlines()[1:]
    curves = [float(value) for row in rows for value in row.split(",")]
    return curves, yaml.safe_load(Path(folder, "metrics/train.json").read_text())["validation"]


def assert_like_one_process(folder="."):
    """Compare the classifier and metrics in `folder` with those of one process, with the same settings."""
    curves, headline = validation_of(folder)
    weights = load_file(Path(folder, "models/trained/model.safetensors"))
    params = read_params()
    params["train"]["devices"] = "auto"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    stage.main()
    expected_curves, expected_headline = validation_of()
    # Rounding alone moved a log-loss of 0.56 by 8e-5 at the highest of these rates.
    assert curves == pytest.approx(expected_curves, rel=1e-4, abs=1e-4)
    assert headline == expected_headline
    expected = load_file("models/trained/model.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        if name.endswith(".key.bias"):  # changes no answer: its gradient is rounding alone, which AdamW scales up
            continue
        assert (weights[name] - weight).abs().max() < 1e-4, name


def test_two_processes_end_as_one_does(inputs, start):
    inputs("train", devices=2)
    printed = finish(start("-m", "stages.train", warm=True))
    assert printed.count("trainable parameters") == printed.count("best state:") == 1
    assert_like_one_process()


@pytest.mark.slow
def test_two_processes_learn_from_unlabelled_texts_as_one_does(inputs, start):
    write_split(Path("data/tokenized/unlabelled.parquet"), 60, seed=5)
    inputs("train", devices=2)
    printed = finish(start("-m", "stages.train"))
    assert printed.count("of 60 unlabelled texts") == 1
    assert_like_one_process()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora", "lora_rank": 2, "lora_dropout": 0.0},
        {"method": "qlora", "lora_rank": 2, "lora_dropout": 0.0},
        {"head": "native", "contrastive_weight": 0.0, "freeze": 1},
        {"gradient_checkpointing": True, "devices": 3, "gradient_accumulation": 1, "batch_size": 7},
        {"num_epochs": 30, "patience": 1, "learning_rate": 0.003},  # stops early; at 0.03 rounding grows to 0.008
        {"adversarial_norm": 0.1, "devices": 3, "gradient_accumulation": 1, "batch_size": 7},
    ],
    ids=["lora", "qlora", "native", "checkpointing, uneven", "patience", "adversarial, uneven"],
)
def test_several_processes_end_as_one_does_whatever_the_method(inputs, start, settings):
    inputs("train", **{"devices": 2} | settings)
    finish(start("-m", "stages.train"))
    assert_like_one_process()


PACKING = """
from intents import trainer
from intents.cli import run
from stages.train import main

trainer.can_record = lambda model: True  # as on GPUs
run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("adversarial_norm", [0.0, 0.4])
def test_two_processes_on_packed_texts_end_as_one_does(inputs, start, monkeypatch, tmp_path, adversarial_norm):
    inputs("train", adversarial_norm=adversarial_norm)
    (tmp_path / "packing.py").write_text(PACKING)
    finish(start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "packing.py"))
    monkeypatch.setattr(trainer, "can_record", lambda _model: True)
    monkeypatch.setattr(trainer, "GraphedPasses", lambda _model, passes, narrow: passes)
    assert_like_one_process()


@pytest.mark.slow
def test_two_machines_end_as_one_does(inputs, start):
    inputs("train", num_epochs=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for rank in range(2):
        folder = Path(f"node{rank}")
        for name in ("models", "data"):
            shutil.copytree(name, folder / name)
        shutil.copyfile("params.yaml", folder / "params.yaml")
        where = ["--node-rank", str(rank), "--master-addr", "127.0.0.1", "--master-port", str(port)]
        torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2", *where]
        nodes.append(start(*torchrun, "-m", "stages.train", folder=folder))
    printed = [finish(node) for node in nodes]
    assert "best state:" in printed[0]
    assert printed[1] == ""
    assert not Path("node1/models/trained").exists() and not Path("node1/metrics").exists()
    assert_like_one_process("node0")


@pytest.mark.parametrize(
    ("settings", "environment", "message"),
    [
        (
            {"devices": 0},
            {},
            r"train.devices: input should be 'auto', or input should be greater than or equal to 1, got 0",
        ),
        ({"devices": "all"}, {}, r"train.devices.*: input should be 'auto'"),
        ({"devices": 5}, {}, r"train.batch_size: 5 processes .* in each of the 2 parts .* at least 10, got 8"),
        (
            {"devices": 3},
            {"CUDA_VISIBLE_DEVICES": "0,1"},
            r"train.devices: 3 GPUs are more than are visible \(2: 0, 1\)",
        ),
        (
            {"devices": 3},
            {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            r"train.devices: must be auto or 2, .* got 3; or start them with --nproc-per-node 3",
        ),
    ],
)
def test_a_senseless_number_of_devices_is_refused(inputs, monkeypatch, settings, environment, message):
    inputs("train", **settings)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        stage.main()


@pytest.mark.slow
def test_a_mistake_that_every_process_finds_is_told_once(inputs, start):
    inputs("train", devices=2, freeze=3)
    process = start("-m", "stages.train")
    stderr = process.communicate(timeout=240)[1]
    assert process.returncode == 1
    assert stderr.count("error: train.freeze: the encoder has 2 layers, got 3") == 1
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(inputs, start):
    inputs("train", devices=2, num_epochs=1000, patience=1000)
    process = start("-m", "stages.train")
    workers = workers_in_training(process)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert (process.returncode, stderr) == (130, "interrupted\n")
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.slow
def test_a_killed_process_ends_all_with_one_error(inputs, start):
    inputs("train", devices=2, num_epochs=1000, patience=1000)
    process = start("-m", "stages.train")
    workers = workers_in_training(process)
    workers[1].kill()
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert stderr.startswith("error: process 2 of 2 was ended by SIGKILL")
    assert len(stderr.splitlines()) == 1
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.slow
def test_a_killed_training_resumes_with_the_same_bytes(inputs, start):
    inputs("runtime", checkpoint_every=EVERY_STEP_S)
    inputs("train", devices=2, dropout=0.2, num_epochs=6)
    finish(start("-m", "stages.train"))
    expected = [Path(name).read_bytes() for name in ("models/trained/model.safetensors", "metrics/plots/training.csv")]
    shutil.rmtree("models/trained")

    process = start("-m", "stages.train")
    workers = workers_in_training(process)
    while not list(Path(".cache/checkpoints").glob("*/*.safetensors")):
        time.sleep(0.01)
    process.kill()  # the launcher alone: the others notice, and end too
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert not Path("models/trained").exists()
    assert "resuming at step" in finish(start("-m", "stages.train"))
    assert [
        Path(name).read_bytes() for name in ("models/trained/model.safetensors", "metrics/plots/training.csv")
    ] == expected
    assert list(Path(".cache/checkpoints").iterdir()) == []
