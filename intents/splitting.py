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
    says, at least one group of each label to each split. The order within a label comes from a hash of `seed` and the
    row's key, not from its position, and single rows fill the first splits first: adding or deleting a row moves at
    most one other row across each boundary.

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
    for label, count in groups_left.items():
        if count < len(splits):
            raise ValueError(f"label {label} has {count} group(s) for {len(splits)} splits")
    assigned = [""] * len(labels)
    # Large groups first, while every split still has room for them.
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), _order(keys[rows[0]], seed))):
        wanted = Counter(labels[row] for row in rows)
        must = [lacking[label] for label in wanted if len(lacking[label]) >= groups_left[label]]
        split = _choose(room, wanted, sorted(must[0]) if must else range(len(splits)))
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


def _choose(room: NDArray[np.int64], wanted: Counter[int], candidates: Sequence[int]) -> int:
    """Return the first candidate split with room for a single row, or the one with most room for a larger group."""
    if wanted.total() == 1:
        (label,) = wanted
        return next((split for split in candidates if room[label, split] > 0), candidates[-1])
    return max(candidates, key=lambda split: min(room[label, split] - count for label, count in wanted.items()))


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


def _order(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
