"""Self-training: a first classifier labels texts that nobody has labelled, a second one learns from these as well.

Pseudo-labels (Lee 2013), of each intent the surest (class-balanced, Zou et al. 2018). Shapes: n unlabelled texts, m of
them that are chosen, c intents.
"""

import gc
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from intents.batching import TokenizedTexts
from intents.checkpoints import Checkpoints, Snapshot
from intents.parallel import from_first, meet
from intents.trainer import answer
from intents.training import fine_tune
from intents.training_settings import TrainingSettings

_LAST = 999_999_999  # the step of the checkpoint that holds the answers: behind those of the training
_ROUNDING = 1e-9  # 0.55 * 100 is a little more than 55


@dataclass(frozen=True)
class PseudoLabels:
    """Which texts count as labelled, in ascending order, and as what; how good the classifier is that says so."""

    texts_m: NDArray[np.int64]
    labels_m: NDArray[np.int64]
    scores: dict[str, float]  # on validation

    @property
    def sha256(self) -> str:
        """What tells them from others."""
        return hashlib.sha256(self.texts_m.tobytes() + self.labels_m.tobytes()).hexdigest()


def find_pseudo_labels(
    model: PreTrainedModel,
    train: TokenizedTexts,
    validation: TokenizedTexts,
    unlabelled: TokenizedTexts,
    pad_token_id: int,
    settings: TrainingSettings,
    share: float,
    checkpoints: Checkpoints | None,
) -> PseudoLabels:
    """Fine-tune `model` on the labelled texts, in place, and return what it makes of the `share` that it is surest of.

    Of several processes each calls this; `checkpoints` are those of the first.
    """
    meet()
    found = from_first(lambda: _read(checkpoints))
    if found is None:
        result = fine_tune(model, train, validation, pad_token_id, settings, lambda values, step: None, checkpoints)
        gc.collect()  # the Trainer, its optimizer and its averages refer to each other, and would stay
        chosen = from_first(lambda: surest(answer(model, unlabelled, pad_token_id, settings.precision), share))
        found = PseudoLabels(*chosen, result.best)
        if checkpoints is not None and checkpoints.active:
            tensors = {"texts": torch.from_numpy(found.texts_m), "labels": torch.from_numpy(found.labels_m)}
            checkpoints.write(Snapshot(_LAST, tensors, {"scores": found.scores}))
    return found


def _read(checkpoints: Checkpoints | None) -> PseudoLabels | None:
    """Return what an earlier run of this training found before it was killed in the second one, if it did."""
    snapshot = None if checkpoints is None else checkpoints.latest()
    if snapshot is None or snapshot.step != _LAST:
        return None
    return PseudoLabels(
        snapshot.tensors["texts"].numpy(), snapshot.tensors["labels"].numpy(), snapshot.values["scores"]
    )


def with_pseudo_labels(train: TokenizedTexts, unlabelled: TokenizedTexts, found: PseudoLabels) -> TokenizedTexts:
    """Return the texts for the second training; labelled ones are repeated where they would be few."""
    repeats = max(1, round(len(found.texts_m) / (2 * len(train))))
    again = np.tile(np.arange(len(train)), repeats - 1)
    return train.joined(train, again, train.labels[again]).joined(unlabelled, found.texts_m, found.labels_m)


def surest(logits_nc: NDArray[np.float32], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return those texts that are surest of their likeliest intent, `share` of each intent's, and that intent, (m,)."""
    confidence_n = 1 / np.exp(logits_nc - logits_nc.max(axis=1, keepdims=True)).sum(axis=1)
    likeliest_n = logits_nc.argmax(axis=1)
    chosen_n = np.zeros(len(logits_nc), dtype=bool)
    for label in np.unique(likeliest_n):
        texts = np.flatnonzero(likeliest_n == label)
        first_is_surest = texts[np.argsort(-confidence_n[texts], kind="stable")]
        most = math.ceil(share * len(texts) - _ROUNDING)
        chosen_n[first_is_surest[:most]] = True
    return np.flatnonzero(chosen_n), likeliest_n[chosen_n]
