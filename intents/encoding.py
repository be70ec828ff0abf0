"""Features of texts by the encoder as pretrained: no label has touched them.

Shapes: n texts, d hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BATCH_SIZE = 64


def encode_tokens(encoder_dir: Path, texts: Sequence[dict[str, Any]], pad_token_id: int) -> NDArray[np.float32]:
    """Return the mean of the encoder's last hidden states over each text's tokens, scaled to length 1, (n, d).

    `texts` are as TokenizedTexts gives them. A dot product of two rows is the cosine similarity of their texts.
    """
    import torch

    from intents.batching import PaddingCollator, sorted_batches
    from intents.classifier import build_classifier

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # The head's one output is not used: the pooling before it is.
    model = build_classifier(encoder_dir, ["unused"], head="mean", feature_scale=1.0).to(device).eval()
    collate = PaddingCollator(pad_token_id)
    features_nd = np.empty((len(texts), model.config.encoder.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for indices in sorted_batches([len(text["input_ids"]) for text in texts], _BATCH_SIZE):
            batch = collate([texts[index] for index in indices])
            inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            features_nd[indices] = model(**inputs).features.float().cpu().numpy()
    return features_nd
