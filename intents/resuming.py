"""transformers' Trainer that saves all it changes while it trains, and goes on from there with the same result.

The Trainer's own loop finds the place in the data; its files, which are pickled, are replaced by those of
`intents.checkpoints`.
"""

import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from intents.averaging import AveragedWeights
from intents.callbacks import BestState, trained_parameters
from intents.checkpoints import Checkpoints, Snapshot


class SaveWhenDue(TrainerCallback):
    """Asks the Trainer for a checkpoint as often as `checkpoints` wants one."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for one, unless this was the last step of a pass: its evaluation is still to come."""
        if not float(state.epoch or 0).is_integer():
            control.should_save = self._checkpoints.due()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for one, which the Trainer makes after the evaluation."""
        control.should_save = self._checkpoints.due()


class ResumableTrainer(Trainer):
    """A Trainer whose state after a step is a Snapshot; a subclass sets `averaged` and `best` before it is called."""

    averaged: AveragedWeights
    best: BestState
    optimizer: Any
    control: Any
    _checkpoints: Checkpoints | None = None
    _resumed: Snapshot | None = None

    def train_resumable(self, checkpoints: Checkpoints, scratch_dir: str) -> None:
        """Train from the newest of `checkpoints`, or from the start, and write new ones."""
        self._checkpoints = checkpoints
        self.add_callback(SaveWhenDue(checkpoints))
        self._resumed = checkpoints.latest()
        try:
            if self._resumed is None:
                self.train()
                return
            state = self._resumed.values["trainer"]
            sys.stdout.write(f"resuming at step {state['global_step']} of {state['max_steps']}\n")
            Path(scratch_dir, "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
            self.train(resume_from_checkpoint=scratch_dir)
        finally:
            checkpoints.wait()

    def snapshot(self) -> Snapshot:
        """Return a copy of all that training has changed, and of the generators of random numbers."""
        optimizer = self.optimizer.state_dict()
        tensors: dict[str, torch.Tensor] = {f"model/{name}": value for name, value in trained_parameters(self.model)}
        tensors |= {f"average/{i}": value for i, value in enumerate(self.averaged.average)}
        tensors |= {f"best/{name}": value for name, value in self.best.weights.items()}
        numbers: dict[str, dict[str, Any]] = {}  # what the optimizer keeps beside tensors
        for index, kept in optimizer["state"].items():
            for name, value in kept.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer/{index}/{name}"] = value
                else:
                    numbers.setdefault(str(index), {})[name] = value
        tensors |= {"random/torch": torch.get_rng_state(), "loop/loss": self._tr_loss}
        if torch.cuda.is_available():
            tensors |= {f"random/cuda/{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
        algorithm, keys, *rest = np.random.get_state()
        values = {
            "trainer": dataclasses.asdict(self.state),
            "scheduler": self.lr_scheduler.state_dict(),
            "groups": optimizer["param_groups"],
            "numbers": numbers,
            "best": {"curves": self.best.curves, "metrics": self.best.metrics, "worse": self.best.worse},
            "loop": [self._total_loss_scalar, self._globalstep_last_logged],
            "random": {"python": random.getstate(), "numpy": [algorithm, np.asarray(keys).tolist(), *rest]},
        }
        copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        return Snapshot(self.state.global_step, copies, values)

    # The Trainer calls the four below, in this order where it resumes.

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # After the evaluation that ended training there is nothing to go on with.
        if self._checkpoints is not None and not self.control.should_training_stop:
            self._checkpoints.write(self.snapshot())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self._resumed is not None
        kept = self._resumed.part("model")
        with torch.no_grad():
            for name, parameter in trained_parameters(self.model):
                parameter.copy_(kept[name])
        best = self._resumed.values["best"]
        self.best.curves, self.best.metrics, self.best.worse = best["curves"], best["metrics"], best["worse"]
        self.best.weights = self._resumed.part("best")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self._resumed is not None
        kept: dict[int, dict[str, Any]] = {
            int(index): dict(numbers) for index, numbers in self._resumed.values["numbers"].items()
        }
        for path, value in self._resumed.part("optimizer").items():
            index, name = path.split("/")
            kept.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": kept, "param_groups": self._resumed.values["groups"]})
        self.lr_scheduler.load_state_dict(self._resumed.values["scheduler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Called right before the first step: the last moment, after the Trainer and the callbacks have started anew.
        if checkpoint is None:
            return
        assert self._resumed is not None
        snapshot, self._resumed = self._resumed, None
        for i, average in enumerate(self.averaged.average):
            average.copy_(snapshot.tensors[f"average/{i}"])
        self._tr_loss.copy_(snapshot.tensors["loop/loss"])
        self._total_loss_scalar, self._globalstep_last_logged = snapshot.values["loop"]
        version, keys, gauss = snapshot.values["random"]["python"]
        random.setstate((version, tuple(keys), gauss))
        np.random.set_state(tuple(snapshot.values["random"]["numpy"]))
        torch.set_rng_state(snapshot.tensors["random/torch"])
        if torch.cuda.is_available():
            cuda = snapshot.part("random/cuda")
            torch.cuda.set_rng_state_all([cuda[str(i)] for i in range(len(cuda))])
