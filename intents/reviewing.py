"""Chooses the rows that a person should look at.

Shapes: n rows, d features of the encoder, x inputs of the model that doubts labels, c intents.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from intents.duplicates import unlike_known
from intents.features import Features, with_words
from intents.querying import most_worth_labelling
from intents.review_files import MISLABELLED, NEIGHBOUR, UNLABELLED, ReviewRow, SourceRow
from intents.suspects import Labels, find_contradictions, find_mislabelled, nearest, out_of_fold_probabilities


def label_numbers(rows: Sequence[SourceRow]) -> tuple[list[str], Labels]:
    """Return the intents there are, in alphabetical order, and each row's number among them, (n,)."""
    intents, labels_n = np.unique([row.intent for row in rows], return_inverse=True)
    return [str(intent) for intent in intents], labels_n.astype(np.int64)


def review_labelled(
    rows: Sequence[SourceRow], features_nd: Features, groups_n: Labels, num_wanted: int, min_similarity: float
) -> list[ReviewRow]:
    """Return up to `num_wanted` rows that are probably mislabelled, then as many pairs of contradicting neighbours.

    Each row is returned once; the two of a pair follow each other, the less credible one first.
    """
    intents, labels_n = label_numbers(rows)
    inputs_nx = with_words(features_nd, [row.text for row in rows])
    probabilities_nc = out_of_fold_probabilities(inputs_nx, labels_n, groups_n)
    reviewed = {}
    for row in find_mislabelled(labels_n, probabilities_nc)[:num_wanted]:
        others_c = np.where(np.arange(len(intents)) == labels_n[row], -1.0, probabilities_nc[row])
        suggested = int(others_c.argmax())
        of_suggested = np.flatnonzero(labels_n == suggested)
        neighbour = of_suggested[nearest(features_nd[[row]], features_nd[of_suggested])[0]]
        reviewed[row] = _review(rows[row], MISLABELLED, intents[suggested], others_c[suggested], rows[neighbour])
    num_pairs = 0
    for pair in find_contradictions(features_nd, labels_n, probabilities_nc, min_similarity):
        if num_pairs == num_wanted:
            break
        if pair.row in reviewed or pair.neighbour in reviewed:
            continue  # is shown with its neighbour already
        num_pairs += 1
        for one, other in ((pair.row, pair.neighbour), (pair.neighbour, pair.row)):
            confidence = probabilities_nc[one, labels_n[other]]
            reviewed[one] = _review(rows[one], NEIGHBOUR, intents[labels_n[other]], confidence, rows[other])
    return list(reviewed.values())


def _review(row: SourceRow, reason: str, suggested: str, confidence: float, neighbour: SourceRow | None) -> ReviewRow:
    shown = "" if neighbour is None else f"{neighbour.file}, row {neighbour.row}, {neighbour.intent}: {neighbour.text}"
    return ReviewRow(row.file, row.row, row.text, row.intent, "", suggested, round(float(confidence), 4), reason, shown)


def without_known(texts: Sequence[SourceRow], known: Sequence[str], threshold: float) -> tuple[list[SourceRow], Labels]:
    """Return the `texts` that are no near-duplicate of a known one, and their near-duplicate groups."""
    positions, groups_n = unlike_known([row.text for row in texts], known, threshold)
    return [texts[position] for position in positions], groups_n


def review_unlabelled(
    texts: Sequence[SourceRow],
    probabilities_nc: NDArray[np.floating],
    intents: Sequence[str],
    groups_n: Labels,
    encode: Callable[[Sequence[str]], Features],
    num_wanted: int,
) -> list[ReviewRow]:
    """Return up to `num_wanted` of the texts (whose intents are empty) most worth labelling, the most worth first."""

    def encode_at(positions: Sequence[int]) -> Features:
        return encode([texts[position].text for position in positions])

    likeliest_n = probabilities_nc.argmax(axis=1)
    return [
        _review(texts[i], UNLABELLED, intents[likeliest_n[i]], probabilities_nc[i, likeliest_n[i]], None)
        for i in most_worth_labelling(probabilities_nc, groups_n, encode_at, num_wanted)
    ]
