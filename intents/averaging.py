"""Exponential moving average of the weights while they are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class AveragedWeights(TrainerCallback):
    """Follows the trained weights: after each step average = decay * average + (1 - decay) * weights.

    Early on the decay is smaller, (1 + step) / (10 + step), so that the first weights are soon forgotten (as in
    TensorFlow's ExponentialMovingAverage). Averages generalise better than the last iterate (Polyak and Juditsky 1992;
    Izmailov et al. 2018), and need fewer epochs. Decay 0: no average is kept.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._trained: list[nn.Parameter] = []
        self.average: list[torch.Tensor] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from the weights as they are."""
        if self.decay:
            self._trained = [parameter for parameter in kwargs["model"].parameters() if parameter.requires_grad]
            self.average = [parameter.detach().clone() for parameter in self._trained]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the average towards the weights."""
        if self.decay:
            decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
            torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self._trained], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it lasts, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, average in zip(self._trained, self.average, strict=True):
            parameter.data, average.data = average.data, parameter.data
