"""A training that is stopped goes on from its last checkpoint, and ends as one that never was."""

import random
import shutil
import time
from functools import cache
from itertools import count
from pathlib import Path

import pytest
import torch
from bitsandbytes.optim import PagedAdamW8bit
from safetensors.torch import save

from intents.checkpoints import Checkpoints
from intents.methods import build_trainee, finish
from intents.trainer import IntentTrainer
from intents.training import fine_tune
from stages import train as stage
from tests.training_fixtures import INTENTS, PAD, model_settings, start_stage, training_settings

pytest_plugins = ["tests.training_fixtures"]
EVERY_STEP_S = 1e-9
SETTINGS = {  # 7 steps a pass
    "full": {"gradient_accumulation": 2, "class_weights": "balanced"},
    "lora": {"label_smoothing": 0.1, "min_steps": 40},  # so that an epoch has two passes
}


class Crash(Exception):
    """Stands in for whatever stops a training."""


@pytest.fixture(scope="module")
def train(families, splits, tmp_path_factory):
    """Return a function that trains with dropout and averaging, and returns the bytes and curves that come out."""

    def train_one(method, checkpoints=None):
        torch.manual_seed(0)
        trainee = build_trainee(
            families["bert"], INTENTS, model_settings(method, dropout=0.2, lora_dropout=0.2, freeze="none")
        )
        settings = training_settings(
            method=method, ema_decay=0.9, contrastive_weight=0.5, scheduler="cosine", **SETTINGS[method]
        )
        log = {}
        result = fine_tune(
            trainee.model, *splits, PAD, settings, lambda values, step: log.update({step: values}), checkpoints
        )
        shipped = finish(trainee, families["bert"], tmp_path_factory.mktemp("trained") / "adapter")
        return save(dict(shipped.state_dict())), result.curves, result.best, log

    return train_one


@pytest.fixture(scope="module")
def uninterrupted(train):
    """Return a function that gives what `train` does where nothing stops it; a method is trained once."""
    return cache(train)


@pytest.fixture
def crash_at(monkeypatch):
    """Return a function that makes the next training crash in the forward pass number `call`."""

    def at(call):
        calls, loss = count(1), IntentTrainer._loss

        def loss_or_crash(self, *args, **kwargs):
            if next(calls) == call:
                monkeypatch.setattr(IntentTrainer, "_loss", loss)
                raise Crash
            return loss(self, *args, **kwargs)

        monkeypatch.setattr(IntentTrainer, "_loss", loss_or_crash)

    return at


def interrupt(train, method, folder, crash_at, call):
    crash_at(call)
    checkpoints = Checkpoints(folder, "key", EVERY_STEP_S)
    with pytest.raises(Crash):
        train(method, checkpoints)
    checkpoints.release()


@pytest.mark.parametrize(("method", "calls", "num_steps"), [("full", (9, 15, 36), 21), ("lora", (9, 15), 42)])
def test_a_resumed_training_ends_with_the_same_bytes_and_curves(
    train, uninterrupted, tmp_path, crash_at, capsys, method, calls, num_steps
):
    expected = uninterrupted(method)
    for call in calls:  # in the midst of an epoch, right after an evaluation, in the last epoch
        folder = tmp_path / f"{call}"
        interrupt(train, method, folder, crash_at, call)
        checkpoints = Checkpoints(folder, "key", EVERY_STEP_S)
        step = checkpoints.latest().step
        capsys.readouterr()
        assert train(method, checkpoints) == expected
        assert f"resuming at step {step} of {num_steps}\n" in capsys.readouterr().out
        checkpoints.release()


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_the_paged_optimizer_of_8_bits_resumes_as_well(train, tmp_path, crash_at, monkeypatch):
    """That of qlora on a GPU; it steps on a CPU, too."""
    monkeypatch.setattr(
        "intents.trainer.torch.optim.AdamW", lambda groups, fused: PagedAdamW8bit(groups, min_8bit_size=64)
    )
    expected = train("full")
    interrupt(train, "full", tmp_path, crash_at, 15)
    checkpoints = Checkpoints(tmp_path, "key", EVERY_STEP_S)
    assert any(tensor.dtype == torch.uint8 for tensor in checkpoints.latest().part("optimizer").values())
    assert train("full", checkpoints) == expected


def test_two_crashes_in_one_training_change_nothing(train, uninterrupted, tmp_path, crash_at):
    expected = uninterrupted("full")
    interrupt(train, "full", tmp_path / "c", crash_at, 12)
    interrupt(train, "full", tmp_path / "c", crash_at, 10)
    assert train("full", Checkpoints(tmp_path / "c", "key", EVERY_STEP_S)) == expected


def test_a_disk_that_takes_no_checkpoint_does_not_stop_training(train, tmp_path, monkeypatch, capsys):
    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("intents.checkpoints.save_file", full_disk)
    train("lora", Checkpoints(tmp_path, "key", EVERY_STEP_S))
    assert "no checkpoint of step 1: No space left on device" in capsys.readouterr().out


@pytest.fixture
def inputs(stage_inputs):
    """The stage's inputs; returns the function that changes settings."""
    stage_inputs("runtime", checkpoint_every=EVERY_STEP_S)
    stage_inputs("train", num_epochs=2, dropout=0.1)
    return stage_inputs


def test_the_stage_removes_its_checkpoints_once_its_results_are_written(inputs):
    stage.main()
    assert Path("models/trained/model.safetensors").is_file()
    assert list(Path(".cache/checkpoints").iterdir()) == []


def test_a_tracker_that_is_interrupted_at_the_end_leaves_the_checkpoints(inputs, monkeypatch):
    def interrupted(self, metrics):
        raise KeyboardInterrupt

    monkeypatch.setattr("intents.tracking._NoTracker.finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.main()
    assert list(Path(".cache/checkpoints").glob("*/*.safetensors"))


def test_without_checkpoint_every_the_stage_keeps_none(inputs):
    inputs("runtime", checkpoint_every=0)
    stage.main()
    assert not Path(".cache/checkpoints").exists()


def wait_for_training(process):
    for line in process.stdout:
        if line.startswith("train"):  # the progress bar, or the number of parameters
            return


def outcome():
    paths = Path("models/trained/model.safetensors"), Path("metrics/plots/training.csv")
    return [path.read_bytes() for path in paths]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_each_end_in_the_same_result(inputs):
    inputs("runtime", checkpoint_every=0.2)
    inputs("train", num_epochs=40, patience=40)
    process = start_stage()
    wait_for_training(process)
    started = time.monotonic()
    assert "resuming" not in process.communicate()[0]
    assert process.returncode == 0
    seconds, expected = time.monotonic() - started, outcome()

    random_ = random.Random(0)
    num_kills = num_resumed = 0
    while num_kills < 20:
        for path in ("models/trained", "models/adapter"):  # as DVC does before it runs a stage
            shutil.rmtree(path, ignore_errors=True)
        process = start_stage()
        if random_.random() < 0.8:
            wait_for_training(process)
        time.sleep(random_.uniform(0, seconds / 3))
        process.kill()
        num_kills += 1
        process.communicate()
        if random_.random() < 0.3 or num_kills == 20:
            done = start_stage()
            num_resumed += "resuming at step" in done.communicate()[0]
            assert outcome() == expected
            assert list(Path(".cache/checkpoints").iterdir()) == []
    assert num_resumed
