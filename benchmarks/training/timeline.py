"""The clock that every system is timed by: when its optimizer steps end, and when its evaluations report."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on validation, and the seconds since training began without and with the evaluations."""

    step: int
    accuracy: float
    training_s: float
    wall_s: float


class Timeline:
    """Times the training in this process through a hook on every torch optimizer, whoever drives it.

    What passes between the end of a step and the report of an evaluation, or of a checkpoint, is a pause and not part
    of training. Everything before the first step (data loading, pairs of texts to be made) is.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.steps_s: list[float] = []
        self.pauses_s: list[tuple[str, float]] = []
        self.evaluations: list[Evaluation] = []
        self._clock = clock
        self._began = self._resumed = clock()
        self._before_s = 0.0

    @contextmanager
    def follow(self) -> Iterator[None]:
        """While it lasts, the clock runs."""
        self._began = self._resumed = self._clock()
        hook = register_optimizer_step_post_hook(lambda *_: self.step_ended())
        try:
            yield
        finally:
            hook.remove()

    @property
    def trained_s(self) -> float:
        """Seconds of training so far."""
        return sum(self.steps_s) + self._before_s

    def begun(self) -> None:
        """Note that all is ready for the first step; what it took to get there counts as training."""
        now = self._clock()
        self._before_s += now - self._resumed
        self._resumed = now

    def step_ended(self) -> None:
        """Note an optimizer step."""
        now = self._clock()
        self.steps_s.append(now - self._resumed)
        self._resumed = now

    def paused(self, why: str) -> None:
        """Note that a pause ends now."""
        now = self._clock()
        self.pauses_s.append((why, now - self._resumed))
        self._resumed = now

    def evaluated(self, accuracy: float) -> None:
        """Note that an evaluation ends now."""
        self.paused("evaluation")
        wall_s = self._resumed - self._began
        self.evaluations.append(Evaluation(len(self.steps_s), accuracy, self.trained_s, wall_s))

    def steady_step_s(self, warm_up: int) -> float:
        """Return the mean seconds of a step, pauses and the first `warm_up` steps aside (all of them, if too few)."""
        return fmean(self.steps_s[warm_up:] or self.steps_s)

    def last_steps_s(self, number: int) -> float:
        """Return the mean seconds of a step, pauses aside, of the last `number` steps."""
        return fmean(self.steps_s[-number:])

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {"evaluations": [asdict(evaluation) for evaluation in self.evaluations], "pauses_s": self.pauses_s}


class WorkCounter:
    """Counts the texts and tokens that a model is trained on: a forward pre-hook that sees keyword arguments."""

    def __init__(self) -> None:
        self.texts = self.useful_tokens = self.padded_tokens = 0

    def __call__(self, module: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Count a batch that goes into `module`."""
        if module.training:
            mask_bt = (kwargs or args[0])["attention_mask"]
            self.texts += len(mask_bt)
            self.useful_tokens += int(mask_bt.sum())
            self.padded_tokens += mask_bt.numel()

    @property
    def padding_share(self) -> float:
        """Share of the tokens that are padding."""
        return 1 - self.useful_tokens / self.padded_tokens


def time_to_accuracy(evaluations: Sequence[dict[str, Any]], target: float, seconds: str) -> float | None:
    """Return the `seconds` ("training_s" or "wall_s") of the first evaluation that reaches `target`; None: none does.

    Nothing is interpolated: an accuracy counts from the evaluation that shows it.
    """
    return next((found[seconds] for found in evaluations if found["accuracy"] >= target), None)
