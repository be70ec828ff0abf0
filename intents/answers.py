"""A classifier's answers to labelled texts.

Shapes: n examples, c intents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from intents.calibrations import ABSTAIN, Calibration
from intents.deciding import acts, decide, softmax

Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """A classifier's answers to n examples of c intents, by its logits and its calibration."""

    intents: Sequence[str]  # c names
    texts: Sequence[str]
    kinds: Sequence[str]  # empty strings where the data has none
    labels_n: Labels
    logits_nc: NDArray[np.float32]
    calibration: Calibration
    untrained: Sequence[str] = ()  # intents that no training row has: their probability means nothing

    @property
    def names(self) -> list[str]:
        """Names of the answers: the intents, and "abstain" where that is answered below a threshold."""
        abstains = self.calibration.reject == ABSTAIN and ABSTAIN not in self.intents
        return [*self.intents, *([ABSTAIN] if abstains else [])]

    @cached_property
    def probabilities_nc(self) -> NDArray[np.float32]:
        """Calibrated probability of every intent."""
        return softmax(self.logits_nc, self.calibration.temperature)

    @cached_property
    def _decided(self) -> tuple[list[str], NDArray[np.float32]]:
        return decide(self.probabilities_nc, self.intents, self.calibration)

    @cached_property
    def predicted_n(self) -> Labels:
        """Index into `names` of each answer, thresholds applied."""
        index_of = {name: index for index, name in enumerate(self.names)}
        return np.array([index_of[answer] for answer in self._decided[0]], dtype=np.int64)

    @property
    def confidence_n(self) -> NDArray[np.float32]:
        """Probability of the likeliest intent."""
        return self._decided[1]

    @property
    def likeliest_right_n(self) -> Flags:
        """Whether the likeliest intent is the true one, thresholds aside."""
        right: Flags = self.probabilities_nc.argmax(1) == self.labels_n
        return right

    @property
    def kept_n(self) -> Flags:
        """Whether the likeliest intent is sure enough to be the answer."""
        kept: Flags = self.predicted_n == self.probabilities_nc.argmax(1)
        return kept

    @property
    def harmless_n(self) -> Flags:
        """Whether each example asks for nothing."""
        return np.isin(self.labels_n, [self.intents.index(name) for name in self.calibration.no_action])

    @cached_property
    def acted_n(self) -> Flags:
        """Whether each answer is one to act on."""
        return np.array(acts(*self._decided, self.calibration), dtype=bool)

    @property
    def action_probability_n(self) -> NDArray[np.float32]:
        """Probability of the likeliest intent that asks for something."""
        actions = [label for label, name in enumerate(self.intents) if name not in self.calibration.no_action]
        highest: NDArray[np.float32] = self.probabilities_nc[:, actions].max(1)
        return highest

    @property
    def trained_n(self) -> Flags:
        """Whether training has seen each example's intent."""
        return ~np.isin(self.labels_n, [self.intents.index(name) for name in self.untrained])

    @property
    def never(self) -> list[str]:
        """The intents that can be no answer: the untrained ones, but for the reject."""
        return [name for name in self.untrained if name != self.calibration.reject]

    @property
    def answerable_n(self) -> Flags:
        """Whether each example's intent can be an answer."""
        return ~np.isin(self.labels_n, [self.intents.index(name) for name in self.never])

    @cached_property
    def answerable(self) -> "Answers":
        """The answers to those examples whose intent can be an answer."""
        if not self.never:
            return self
        kept_n = self.answerable_n
        texts, kinds = (list(compress(values, kept_n)) for values in (self.texts, self.kinds))
        return replace(self, texts=texts, kinds=kinds, labels_n=self.labels_n[kept_n], logits_nc=self.logits_nc[kept_n])

    @cached_property
    def likeliest(self) -> "Answers":
        """The answers of the same classifier without thresholds, unless some intent is answered only by them."""
        if self.calibration.reject in self.untrained:
            return self
        return replace(self, calibration=replace(self.calibration, thresholds={}, reject=None))

    @cached_property
    def uncalibrated(self) -> "Answers":
        """The answers of the same classifier without temperature and thresholds."""
        return replace(self, calibration=Calibration(no_action=self.calibration.no_action))
