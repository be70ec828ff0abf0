"""What happens beside training: the best state is kept in memory, a bar shows the progress."""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class BestState(TrainerCallback):
    """Keeps the best weights in memory and stops after `patience` evaluations without a better one.

    Weights that have become NaN stay so: an infinite log-loss stops at once.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.metric = metric
        self.patience = patience
        self.curves: list[dict[str, float]] = []
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.worse = 0

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Compare the evaluation that just ended with the best so far."""
        found = {name.removeprefix("eval_"): value for name, value in kwargs["metrics"].items()}
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        point = {
            "epoch": state.epoch or 0.0,
            "step": state.global_step,
            "train_loss": losses[-1] if losses else math.nan,
        }
        point |= {name: found[name] for name in ("accuracy", "macro_f1", "log_loss")}
        self.curves.append(point)
        if not math.isfinite(point["log_loss"]):
            control.should_training_stop = True
        if not self.metrics or self._is_better(point, self.metrics):
            self.metrics = point
            self.weights = {name: value.detach().clone() for name, value in trained_parameters(kwargs["model"])}
            self.worse = 0
            return
        self.worse += 1
        if self.worse >= self.patience:
            control.should_training_stop = True

    def _is_better(self, point: dict[str, float], best: dict[str, float]) -> bool:
        """Tell by the metric; where that is the same, as it often is of few texts, by the log-loss."""
        sign = -1 if self.metric.endswith("loss") else 1
        one, other = ((sign * found[self.metric], -found["log_loss"]) for found in (point, best))
        return one > other

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back into `model`."""
        with torch.no_grad():
            for name, parameter in trained_parameters(model):
                parameter.copy_(self.weights[name])


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield what training changes: with an adapter, that is a hundredth of the model."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


class Progress(TrainerCallback):
    """A progress bar, and a line per evaluation."""

    def __init__(self, best: BestState, log: Callable[[dict[str, float], int], None]) -> None:
        self._best = best
        self._log = log
        self._bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar, and log the curves so far."""
        interval = 1 if sys.stdout.isatty() else 15  # seconds; a log file needs fewer lines
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            desc="train",
            mininterval=interval,
            file=sys.stdout,
        )
        for point in self._best.curves:  # a resumed training is a new run to the tracker
            self._send(point)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Print and log the newest point of the curves."""
        point = self._best.curves[-1]
        values = "  ".join(f"{name} {value:.4f}" for name, value in point.items() if name not in ("epoch", "step"))
        mark = "  best so far" if point is self._best.metrics else ""
        self._bar.write(f"epoch {point['epoch']:g}  {values}{mark}", file=sys.stdout)
        self._send(point)

    def _send(self, point: dict[str, float]) -> None:
        of_training = {"train_loss": "train/loss", "epoch": "epoch"}
        values = {of_training.get(name, f"validation/{name}"): value for name, value in point.items() if name != "step"}
        self._log(values, int(point["step"]))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()
