"""Scores texts with a PyTorch checkpoint; torch is imported when one is opened.

Shapes: n texts, b texts of a batch, t tokens, c intents.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intents.bulk.scoring import CPU_TOKENS, GPU_TOKENS, budget_batches
from intents.calibrations import read_calibration
from intents.deciding import softmax


class TorchScorer:
    """A checkpoint such as models/classifier, on a GPU where there is one.

    Its calibration lies beside the weights, or in `calibration_dir`.

    Raises:
        ValueError: a part is missing or damaged.

    """

    def __init__(self, folder: Path, num_threads: int | None = None, calibration_dir: Path | None = None) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / name).is_file():  # transformers would make do with an empty vocabulary
                raise ValueError(f"{folder} has no {name}: copy it anew, or `dvc pull {folder}`")
        import torch
        import transformers

        from intents.classifier import load_classifier

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        if num_threads:
            torch.set_num_threads(num_threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_classifier(folder).to(self._device)
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except ValueError as error:
            raise ValueError(f"{folder}: its tokenizer is damaged ({error}); copy it anew") from None
        names = self._model.config.id2label
        self.intents = [str(names[label]) for label in sorted(names, key=int)]
        self.calibration = read_calibration(calibration_dir or folder, self.intents)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the calibrated probability of every intent, (n, c)."""
        if not texts:
            return np.empty((0, len(self.intents)), dtype=np.float32)
        ids = self._tokenizer(list(texts), truncation=True, return_attention_mask=False)["input_ids"]
        max_tokens = CPU_TOKENS if self._device == "cpu" else GPU_TOKENS
        logits_nc = np.empty((len(ids), len(self.intents)), dtype=np.float32)
        for indices in budget_batches([len(text) for text in ids], max_tokens):
            logits_nc[indices] = self._logits([ids[index] for index in indices])
        return softmax(logits_nc, self.calibration.temperature)

    def _logits(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the logits, (b, c), of texts as token ids."""
        import torch

        input_ids_bt = np.full((len(ids), max(1, *map(len, ids))), self._tokenizer.pad_token_id or 0, dtype=np.int64)
        mask_bt = np.zeros_like(input_ids_bt)
        for row, text in enumerate(ids):
            input_ids_bt[row, : len(text)] = text
            mask_bt[row, : len(text)] = 1
        with torch.inference_mode():
            inputs = {"input_ids": input_ids_bt, "attention_mask": mask_bt}
            tensors = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
            logits: NDArray[np.float32] = self._model(**tensors).logits.float().cpu().numpy()
        return logits
