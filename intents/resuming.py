"""transformers' Trainer that saves all it changes while it trains, and goes on from there with the same result.

The Trainer's own loop finds the place in the data; its files, which are pickled, are replaced by those of
`intents.checkpoints`.
"""

import dataclasses
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from intents.averaging import AveragedWeights
from intents.callbacks import BestState, trained_parameters
from intents.checkpoints import Checkpoints, Snapshot
from intents.parallel import from_all, from_first, process_index


class SaveWhenDue(TrainerCallback):
    """Asks the Trainer for a checkpoint as often as `is_due` says, for all processes at once."""

    def __init__(self, is_due: Callable[[], bool]) -> None:
        self._is_due = is_due

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for one, unless this was the last step of a pass: its evaluation is still to come."""
        if not float(state.epoch or 0).is_integer():
            control.should_save = from_first(self._is_due)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for one, which the Trainer makes after the evaluation."""
        control.should_save = from_first(self._is_due)


class ResumableTrainer(Trainer):
    """A Trainer whose state after a step is a Snapshot; a subclass sets `averaged` and `best` before it is called."""

    averaged: AveragedWeights
    best: BestState
    optimizer: Any
    control: Any
    _checkpoints: Checkpoints | None = None
    _resumed: Snapshot | None = None

    def train_resumable(self, checkpoints: Checkpoints | None, scratch_dir: str) -> None:
        """Train from the newest of `checkpoints`, or from the start, and write new ones.

        Of several processes the first one has `checkpoints`, the others None.
        """
        self._checkpoints = checkpoints
        self.add_callback(SaveWhenDue(lambda: checkpoints is not None and checkpoints.due()))
        self._resumed = from_first(lambda: None if checkpoints is None else checkpoints.latest())
        try:
            if self._resumed is None:
                self.train()
                return
            state = self._resumed.values["trainer"]
            if checkpoints is not None:
                sys.stdout.write(f"resuming at step {state['global_step']} of {state['max_steps']}\n")
            Path(scratch_dir, "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
            self.train(resume_from_checkpoint=scratch_dir)
        finally:
            if checkpoints is not None:
                checkpoints.wait()

    def own_state(self) -> dict[str, torch.Tensor]:
        """Return what differs between processes that train together: random numbers, the loss since it was logged."""
        state = {"random": torch.get_rng_state(), "loss": self._tr_loss.cpu()}
        return state | ({"random_cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})

    def snapshot(self, own_states: Sequence[dict[str, torch.Tensor]]) -> Snapshot:
        """Return a copy of all that training has changed, with the `own_state` of every process."""
        # Not that of bitsandbytes, which puts the tensors of a parameter one dictionary deeper; it loads either.
        optimizer = torch.optim.Optimizer.state_dict(getattr(self.optimizer, "optimizer", self.optimizer))
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
        for index, state in enumerate(own_states):
            tensors |= {f"process/{index}/{name}": value for name, value in state.items()}
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
        if self.control.should_training_stop:
            return
        own_states = from_all(self.own_state())
        if self._checkpoints is not None:
            self._checkpoints.write(self.snapshot(own_states))

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
        own = snapshot.part(f"process/{process_index()}")
        self._tr_loss.copy_(own["loss"])
        self._total_loss_scalar, self._globalstep_last_logged = snapshot.values["loop"]
        version, keys, gauss = snapshot.values["random"]["python"]
        random.setstate((version, tuple(keys), gauss))
        np.random.set_state(tuple(snapshot.values["random"]["numpy"]))
        torch.set_rng_state(own["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state(own["random_cuda"])
