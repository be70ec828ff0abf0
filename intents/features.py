"""Features of texts that no label has touched: those of the encoder as pretrained, and the words.

Shapes: n texts, d hidden size, w words and pairs of words.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intents.encoding import encode_tokens
from intents.tokenizing import load_tokenizer

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Features = NDArray[np.float32]
_MOST_WORDS = 50_000  # a model of 150 intents over as many takes 2 GB to fit; rarer words hardly matter to it


def encode_texts(encoder_dir: Path, texts: Sequence[str], max_length: int) -> Features:
    """Return the mean of the encoder's last hidden states over each text's tokens, scaled to length 1, (n, d).

    A dot product of two rows is the cosine similarity of their texts. Texts are cut at `max_length` tokens.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(encoder_dir, max_length)
    ids = tokenizer(list(texts), truncation=True, return_attention_mask=False)["input_ids"] if texts else []
    unlabelled = [{"input_ids": tokens, "label": 0} for tokens in ids]
    return encode_tokens(encoder_dir, unlabelled, tokenizer.pad_token_id)


def with_words(features_nd: Features, texts: Sequence[str]) -> "csr_array":
    """Return the features with the TF-IDF weights of the texts' words and pairs of words beside them, (n, d + w).

    Of words and pairs the 50,000 most frequent ones.

    A pretrained encoder says what a text is about and hardly whether it is wanted: "open it" and "leave it shut" are
    close. The words tell these apart.
    """
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    words_nw = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+", max_features=_MOST_WORDS
    ).fit_transform(texts)
    return hstack([csr_array(features_nd), words_nw], format="csr")
