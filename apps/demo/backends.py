"""The one place of the demo that knows how PyTorch and ONNX classifiers are called."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from intents.deciding import load_calibration, softmax

_BATCH_SIZE = 64


class Scorer(Protocol):
    """A classifier with its calibration."""

    intents: Sequence[str]
    thresholds: Mapping[str, float]
    reject: str | None

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the calibrated probability of every intent, (n, c)."""


class TorchScorer:
    """A checkpoint such as models/classifier."""

    def __init__(self, folder: Path, num_threads: int | None) -> None:
        import torch
        import transformers

        from intents.classifier import load_classifier

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        if num_threads:
            torch.set_num_threads(num_threads)
        calibration = load_calibration(folder)
        self._model = load_classifier(folder)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._temperature = calibration.temperature
        self.thresholds, self.reject = calibration.thresholds, calibration.reject
        names = self._model.config.id2label or {}
        self.intents: Sequence[str] = [str(names[label]) for label in sorted(names)]

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the calibrated probability of every intent, (n, c)."""
        import torch

        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        logits_nc = np.empty((len(texts), len(self.intents)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH_SIZE):
                chosen = order[start : start + _BATCH_SIZE]
                tokens = self._tokenizer(
                    [texts[index] for index in chosen], truncation=True, padding=True, return_tensors="pt"
                )
                logits_nc[chosen] = self._model(**tokens).logits.float().numpy()
        return softmax(logits_nc, self._temperature)


class OnnxScorer:
    """An exported classifier; `variant` is int8 or fp32."""

    def __init__(self, folder: Path, variant: str, num_threads: int | None) -> None:
        from intents.runtime import IntentClassifier

        self._classifier = IntentClassifier.load(
            folder, variant=variant, num_threads=num_threads or os.cpu_count() or 1
        )
        settings = self._classifier.settings
        self.intents, self.thresholds, self.reject = settings.intents, settings.thresholds, settings.reject

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the calibrated probability of every intent, (n, c)."""
        probabilities_nc: NDArray[np.float32] = self._classifier.probabilities(texts)
        return probabilities_nc


def load_scorer(folder: Path, variant: str = "int8", num_threads: int | None = None) -> Scorer:
    """Return the classifier in `folder`: exported (then `variant` is int8 or fp32) or a checkpoint.

    `num_threads` None uses every core.

    Raises:
        ValueError: the folder holds neither.

    """
    if any(folder.glob("model*.onnx")):
        return OnnxScorer(folder, variant, num_threads)
    return TorchScorer(folder, num_threads)
