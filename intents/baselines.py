"""Classifiers so simple that a fine-tuned one has to beat them.

Shapes: n texts, d features, c intents.
"""

import copy
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Features = Any  # (n, d), a NumPy array or a SciPy sparse matrix
_MAX_ITERATIONS = 100  # per fit: late ones change few answers, and with many intents each takes a second
_MAX_NGRAMS = 100_000  # of either kind, the most frequent


@dataclass(frozen=True)
class Baseline:
    """What a baseline answers to the test texts, and what it took to make it."""

    predicted_n: Labels
    validation_accuracy: float
    seconds: float  # features of train and validation, and every fit; answering the test texts is not counted
    regularisation: float | None = None


def sample_rows(num_rows: int, most: int, seed: int) -> Labels:
    """Return the indices of at most `most` of `num_rows` rows, drawn at random, in ascending order."""
    if num_rows <= most:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(seed).choice(num_rows, most, replace=False))


def sample_training_rows(labels_n: Labels, most: int, seed: int) -> Labels:
    """Return the indices that `sample_rows` does, in which random rows make room for those of an intent it left out.

    Raises:
        ValueError: there are more intents than `most`.

    """
    drawn = sample_rows(len(labels_n), most, seed)
    missing = np.setdiff1d(labels_n, labels_n[drawn])
    if not len(missing):
        return drawn
    if (num_intents := len(np.unique(labels_n))) > most:
        raise ValueError(f"baselines.max_rows must be at least {num_intents}, the number of intents, got {most}")
    random = np.random.default_rng((seed, 1))
    added = [random.choice(np.flatnonzero(labels_n == label)) for label in missing]
    _, first = np.unique(labels_n[drawn], return_index=True)
    others = random.permutation(np.delete(drawn, first))[len(added) :]
    return np.sort(np.concatenate([drawn[first], others, added]))


def _validation_accuracy(predicted_n: Labels, labels: Mapping[str, Labels]) -> float:
    """Return the share of right answers to those validation texts whose intent some training text has.

    Raises:
        ValueError: there is no such text.

    """
    known_n = np.isin(labels["validation"], labels["train"])
    if not known_n.any():
        raise ValueError(
            f"baselines.max_rows: none of the {len(known_n)} validation rows that were drawn has an intent that"
            " training rows have; raise it"
        )
    return float((predicted_n == labels["validation"])[known_n].mean())


def majority_baseline(labels: Mapping[str, Labels], num_test: int) -> Baseline:
    """Return the baseline that always answers with the most frequent intent of `labels["train"]`."""
    started = time.perf_counter()
    most_frequent = int(np.bincount(labels["train"]).argmax())
    accuracy = _validation_accuracy(np.full(len(labels["validation"]), most_frequent), labels)
    return Baseline(np.full(num_test, most_frequent), accuracy, time.perf_counter() - started)


def regression_baseline(
    features_of: Callable[[str], Features], labels: Mapping[str, Labels], regularisations: Sequence[float]
) -> Baseline:
    """Return logistic regression on features, with the C of `regularisations` that is most accurate on validation.

    `features_of` is called with "train" first, then "validation" and "test"; `labels` has the first two. Each fit
    starts from the one with the next smaller C; of equally accurate ones the smallest C wins.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    started = time.perf_counter()
    train, validation = features_of("train"), features_of("validation")
    regression = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
    best, best_accuracy = regression, -1.0
    for regularisation in sorted(regularisations):
        regression.set_params(C=regularisation)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(train, labels["train"])
        accuracy = _validation_accuracy(regression.predict(validation), labels)
        if accuracy > best_accuracy:
            best, best_accuracy = copy.deepcopy(regression), accuracy
    seconds = time.perf_counter() - started
    return Baseline(best.predict(features_of("test")), best_accuracy, seconds, best.C)


def tfidf_features(texts: Mapping[str, Sequence[str]]) -> Callable[[str], Features]:
    """Return the function from a split to its TF-IDF weights of words, pairs of words and 2 to 5 characters.

    Of characters alone where no training text has a word, of two letters or more, as scikit-learn counts them.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    settings = {"sublinear_tf": True, "max_features": _MAX_NGRAMS, "dtype": np.float32}
    words = TfidfVectorizer(ngram_range=(1, 2), **settings)
    has_words = any(map(words.build_tokenizer(), texts["train"]))
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **settings)
    vectorizer = make_union(*([words] if has_words else []), characters)

    def features_of(split: str) -> Features:
        return vectorizer.fit_transform(texts[split]) if split == "train" else vectorizer.transform(texts[split])

    return features_of
