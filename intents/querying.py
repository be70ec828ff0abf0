"""Which unlabelled texts to label next.

Shapes: n texts, c intents.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from intents.features import Features

_CANDIDATES = 10  # times as many texts as are wanted take part in the clustering


def margins(probabilities_nc: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how far the likeliest intent is ahead of the second, (n,), 0 to 1: low is unsure."""
    ordered = np.sort(probabilities_nc.astype(np.float64), axis=1)
    gaps: NDArray[np.float64] = ordered[:, -1] - ordered[:, -2]
    return gaps


def most_worth_labelling(
    probabilities_nc: NDArray[np.floating],
    groups_n: NDArray[np.int64],
    encode: Callable[[Sequence[int]], Features],
    num_wanted: int,
) -> list[int]:
    """Return the positions of up to `num_wanted` texts, the least certain first, no two of one group.

    `encode` returns the features of the texts at some positions: most texts need none.

    Diverse mini-batch active learning (Zhdanov 2019): of the ten times as many texts with the smallest margins, k-means
    weighted by uncertainty makes as many clusters as texts are wanted, so that one confusing topic does not take
    all the places. Unlike there, a cluster sends its least certain text, not its most central one.
    """
    margins_n = margins(probabilities_nc)
    order = np.argsort(margins_n, kind="stable")
    _, first_of_group = np.unique(groups_n[order], return_index=True)
    candidates = order[np.sort(first_of_group)][: num_wanted * _CANDIDATES].tolist()
    if len(candidates) <= num_wanted:
        return candidates
    from sklearn.cluster import KMeans

    weights = np.maximum(1 - margins_n[candidates], 1e-6)
    clusters = KMeans(num_wanted, n_init=1, random_state=0).fit_predict(encode(candidates), sample_weight=weights)
    _, first_of_cluster = np.unique(clusters, return_index=True)
    return [candidates[index] for index in np.sort(first_of_cluster)]
