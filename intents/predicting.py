"""Logits of a classifier for a whole split."""

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from intents.batching import PaddingCollator, TokenizedTexts, sorted_batches


def predict_logits(
    model: PreTrainedModel, texts: TokenizedTexts, pad_token_id: int, batch_size: int
) -> NDArray[np.float32]:
    """Return the logits of every text, (n, num_labels), in the order of `texts`."""
    collate = PaddingCollator(pad_token_id)
    logits = np.empty((len(texts), model.config.num_labels), dtype=np.float32)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for indices in sorted_batches(texts.lengths, batch_size):
            batch = collate([texts[index] for index in indices])
            del batch["labels"]
            output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
            logits[indices] = output.logits.float().cpu().numpy()
    model.train(was_training)
    return logits
