"""Logits of a classifier for a whole split."""

from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import PreTrainedModel

from intents.batching import PaddingCollator, TokenizedTexts, sorted_batches
from intents.classifier import load_classifier

_BATCH_SIZE = 64


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


def answer_split(classifier_dir: Path, tokenized_path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the labels of the tokenised texts at `tokenized_path`, and the logits of the classifier for them."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = load_classifier(classifier_dir).to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(classifier_dir, trust_remote_code=False)
    texts = TokenizedTexts(tokenized_path)
    return texts.labels, predict_logits(model, texts, tokenizer.pad_token_id, _BATCH_SIZE)
