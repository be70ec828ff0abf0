"""Labelled rows that deserve a second look, found without the classifier that learned from them.

Shapes: n rows, d features of the encoder, x inputs of the model (features and words), c intents.
"""

import importlib.util
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intents.features import Features

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

_NUM_FOLDS = 5
_INVERSE_REGULARISATION = 10.0  # inputs are short vectors, which scikit-learn's 1.0 would hardly fit
_CHUNK_ROWS = 1024

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class Contradiction:
    """Two rows, by position, that are alike but have different intents; `row` is the less credible one."""

    row: int
    neighbour: int
    similarity: float


def out_of_fold_probabilities(inputs_nx: "csr_array", labels_n: Labels, groups_n: Labels) -> Probabilities:
    """Return each row's probability of every intent, (n, c), by a model that saw no row of its group.

    Logistic regression under 5-fold cross-validation. Rows of one group (near-duplicates) are always left out together:
    a wrong label must not be confirmed by its own copy. Fewer folds where no intent has five rows.

    Raises:
        ValueError: there is one intent, or no intent has two rows, or all rows are near-duplicates, or some model would
            know one intent alone.

    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    num_folds = min(_NUM_FOLDS, len(np.unique(groups_n)), int(np.bincount(labels_n).max(initial=0)))
    too_few = ValueError(
        f"{len(labels_n)} rows of {len(np.unique(labels_n))} intent(s) are too few, or too much alike, to doubt any"
        " of them; label more"
    )
    if num_folds < 2:
        raise too_few
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # An intent with fewer rows than folds is missing from some model, which gives it probability 0.
        warnings.simplefilter("ignore")
        splits = list(folds.split(labels_n, labels_n, groups_n))
        if any(len(np.unique(labels_n[others])) < 2 for others, _ in splits):
            raise too_few
        found: Probabilities = cross_val_predict(new_model(), inputs_nx, labels_n, cv=splits, method="predict_proba")
    return found


def new_model() -> "LogisticRegression":
    """Return an untrained model of intents over what `with_words` returns."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=1000)


def require_cleanlab() -> None:
    """Raise ValueError where cleanlab is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        raise ValueError("finding wrong labels needs cleanlab: pip install -c constraints.txt -e '.[review]'")


def find_mislabelled(labels_n: Labels, probabilities_nc: Probabilities) -> list[int]:
    """Return the rows that are probably mislabelled, the least credible label first.

    Confident learning (Northcutt et al. 2021), as cleanlab has it: how many rows of each intent are really of another
    is estimated from out-of-fold probabilities, and so many of the least credible ones are named.
    """
    require_cleanlab()
    from cleanlab.filter import find_label_issues

    ranked = find_label_issues(labels_n, probabilities_nc, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(row) for row in ranked]


def find_contradictions(
    features_nd: Features, labels_n: Labels, probabilities_nc: Probabilities, min_similarity: float
) -> list[Contradiction]:
    """Return pairs of rows at least so alike (cosine) whose intents differ, the most doubtful first; no row twice.

    Rows that differ by one decisive word ("open it", "don't open it") are alike, too. So pairs are ordered by the
    lesser credibility, that is, out-of-fold probability of the own intent, of the two: a pair that a model tells apart
    comes late.
    """
    similarity_n, neighbour_n = _nearest_of_others(features_nd, labels_n)
    credibility_n = probabilities_nc[np.arange(len(labels_n)), labels_n]
    lesser_n = np.minimum(credibility_n, credibility_n[neighbour_n])
    found: list[Contradiction] = []
    taken: set[int] = set()
    for row in np.lexsort((-similarity_n, lesser_n)):
        neighbour = int(neighbour_n[row])
        if similarity_n[row] < min_similarity or {int(row), neighbour} & taken:
            continue
        first, second = sorted((int(row), neighbour), key=lambda position: credibility_n[position])
        found.append(Contradiction(first, second, float(similarity_n[row])))
        taken |= {first, second}
    return found


def _nearest_of_others(features_nd: Features, labels_n: Labels) -> tuple[NDArray[np.float32], Labels]:
    """Return for each row the similarity and the position of the most similar row of another intent."""
    similarity_n = np.empty(len(labels_n), dtype=np.float32)
    neighbour_n = np.empty(len(labels_n), dtype=np.int64)
    for start in range(0, len(labels_n), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        similarity = features_nd[rows] @ features_nd.T
        similarity[labels_n[rows, None] == labels_n] = -np.inf
        neighbour_n[rows] = similarity.argmax(axis=1)
        similarity_n[rows] = similarity.max(axis=1)
    return similarity_n, neighbour_n


def nearest(features_md: Features, features_nd: Features) -> Labels:
    """Return for each of m rows the position of the most similar of n others, (m,)."""
    chunks = [
        (features_md[start : start + _CHUNK_ROWS] @ features_nd.T).argmax(axis=1)
        for start in range(0, len(features_md), _CHUNK_ROWS)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *chunks])
