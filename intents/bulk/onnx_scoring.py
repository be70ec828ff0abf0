"""Scores texts with an exported classifier; neither torch nor transformers is imported."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intents.bulk.scoring import CPU_TOKENS, budget_batches
from intents.deciding import softmax
from intents.launching import num_cores


class OnnxScorer:
    """An exported classifier such as models/onnx; `num_threads` None uses every core.

    Each thread scores batches of its own, so that no thread waits for another within a batch.
    """

    def __init__(self, folder: Path, variant: str, num_threads: int | None) -> None:
        from intents.runtime import IntentClassifier

        self._classifier = IntentClassifier.load(folder, variant, num_threads=1)
        settings = self._classifier.settings
        self._pool = ThreadPoolExecutor(num_threads or num_cores())
        self.intents, self.calibration = settings.intents, settings.calibration

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the calibrated probability of every intent, (n, c)."""
        logits_nc = np.empty((len(texts), len(self.intents)), dtype=np.float32)
        ids = [encoding.ids for encoding in self._classifier.tokenizer.encode_batch_fast(list(texts))]

        def score(indices: NDArray[np.int64]) -> None:
            logits_nc[indices] = self._classifier.logits_of_tokens([ids[index] for index in indices])

        for _ in self._pool.map(score, budget_batches([len(text) for text in ids], CPU_TOKENS)):
            pass  # an exception of a thread is raised here
        return softmax(logits_nc, self._classifier.settings.temperature)
