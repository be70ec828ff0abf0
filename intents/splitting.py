"""Splits rows into train, validation and test, stratified by intent, never tearing a group apart."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class TooFewGroupsError(ValueError):
    """The rows of one label are in too few groups to be in every split."""

    def __init__(self, label: int, splits: Sequence[str]) -> None:
        super().__init__(f"label {label} has too few groups of its own to be in each of {', '.join(splits)}")
        self.label = label


def stratified_group_split(
    labels: Sequence[int], groups: Sequence[int], keys: Sequence[str], shares: dict[str, float], seed: int
) -> list[str]:
    """Return the split of each of n rows.

    Rows of one group stay together. Every label's rows are shared out as `shares` (split name to share, summing to 1)
    says, at least one group of each label to each split. Where a row goes comes from a hash of `seed` and its key, not
    from its position: a group of several rows goes to each split with the probability of its share, so that no split is
    without near-duplicates, and single rows then fill what is left, the first splits first. Adding or deleting a single
    row moves at most one other row across each boundary.

    Raises:
        TooFewGroupsError: a label has too few groups to be in each split.

    """
    splits = list(shares)
    room = _quotas(np.asarray(labels), np.array(list(shares.values())))
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    groups_left = Counter(label for rows in members.values() for label in {labels[row] for row in rows})
    lacking = {label: set(range(len(splits))) for label in groups_left}
    assigned = [""] * len(labels)
    reach = np.cumsum(list(shares.values()))[:-1]
    # Large groups first, while every split still has room for them.
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), _draw(keys[rows[0]], seed))):
        wanted = Counter(labels[row] for row in rows)
        must = [lacking[label] for label in wanted if len(lacking[label]) >= groups_left[label]]
        candidates = sorted(must[0]) if must else range(len(splits))
        drawn = int(np.searchsorted(reach, _draw(keys[rows[0]], seed), side="right"))
        split = _choose(room, wanted, candidates, drawn)
        for label, count in wanted.items():
            room[label, split] -= count
            groups_left[label] -= 1
            lacking[label].discard(split)
        for row in rows:
            assigned[row] = splits[split]
    for label, missing in lacking.items():
        if missing:  # groups that span labels can use up what another label needs
            raise TooFewGroupsError(label, splits)
    return assigned


def _choose(room: NDArray[np.int64], wanted: Counter[int], candidates: Sequence[int], drawn: int) -> int:
    """Return the split of a group that has `wanted` rows of each label.

    A single row gets the first candidate with room; a larger group the drawn split if that is a candidate with room for
    all of it, else the candidate with most room.
    """
    if wanted.total() == 1:
        (label,) = wanted
        return next((split for split in candidates if room[label, split] > 0), candidates[-1])
    left = {split: min(room[label, split] - count for label, count in wanted.items()) for split in candidates}
    return drawn if left.get(drawn, -1) >= 0 else max(candidates, key=lambda split: left[split])


def _quotas(labels: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many rows of each label each split should get, (num_labels, num_splits), at least one each."""
    counts = np.bincount(labels)
    exact = counts[:, None] * shares
    quotas = np.maximum(np.floor(exact).astype(np.int64), 1)
    for label, count in enumerate(counts):
        while (missing := count - quotas[label].sum()) != 0:
            step = 1 if missing > 0 else -1
            gap = (exact[label] - quotas[label]) * step
            gap[(quotas[label] + step) < 1] = -np.inf
            quotas[label, int(np.argmax(gap))] += step
    return quotas


def _draw(key: str, seed: int) -> float:
    """Return a number from 0 to 1 that `key` and `seed` decide."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()) / 2**64
