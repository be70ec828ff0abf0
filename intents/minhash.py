"""Groups texts that share most of their character trigrams without comparing all pairs.

MinHash signatures with banded locality-sensitive hashing (Broder 1997, "On the resemblance and containment of
documents"; Leskovec et al., "Mining of Massive Datasets", chapter 3) propose pairs, the exact Jaccard similarity of the
texts' trigrams decides. All steps are vectorised over the whole collection.

Shapes: n texts, s shingles over all of them, h hash functions, p proposed pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGE = 100_000  # texts from which on chance collisions would cost more than the last 0.3 % of recall is worth
_WINDOW = 64  # in a crowded bucket a text is compared with this many neighbours
CHUNK = 1 << 22  # values worked on at a time

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Shingles:
    """Sorted distinct trigram hashes of each text: text i owns `values[starts[i]:starts[i + 1]]`."""

    values: NDArray[np.uint32]  # (s,)
    starts: IntArray  # (n + 1,)


def group_distinct(texts: list[str], threshold: float) -> IntArray:
    """Return a group number for each of n normalised texts, (n,): the position of its group's first text."""
    num_bands, rows_per_band = _choose_bands(len(texts), threshold)
    groups: IntArray = np.arange(len(texts), dtype=np.int64)
    shingles = shingle(texts)
    signatures = _minhash(shingles, num_bands * rows_per_band)
    sketches = _sketch(signatures)
    for band in range(num_bands):
        keys = _hash_rows(signatures[band * rows_per_band : (band + 1) * rows_per_band])
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for offset in range(1, min(_WINDOW, len(texts) - 1) + 1):
            (at,) = np.nonzero(ordered[offset:] == ordered[:-offset])
            if not len(at):
                break
            first, second = order[at], order[at + offset]
            unlinked = groups[first] != groups[second]
            groups = _link(groups, _similar_pairs(shingles, sketches, first[unlinked], second[unlinked], threshold))
    return groups


def _choose_bands(num_texts: int, threshold: float) -> tuple[int, int]:
    """Return the number of bands b and of rows r in each.

    A pair at Jaccard t shares a band with probability 1 - (1 - t ** r) ** b: 0.996 or more from the threshold on.
    """
    if threshold >= 0.7:
        return 32, 4 if num_texts <= _LARGE else 5
    if threshold >= 0.65:
        return 32, 4
    return (42, 3) if threshold >= 0.5 else (64, 2)


def _link(groups: IntArray, pairs: tuple[IntArray, IntArray]) -> IntArray:
    """Return the groups, (n,), after uniting those of p pairs; a group's number is its first text's position."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(pairs[0]):
        return groups
    size = len(groups)
    first, second = np.concatenate([np.arange(size), pairs[0]]), np.concatenate([groups, pairs[1]])
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    _, first_of = np.unique(components, return_index=True)
    return first_of[components].astype(np.int64)


def shingle(normalised: list[str]) -> Shingles:
    """Return the trigrams of normalised texts, of each with a blank before and after it."""
    padded = [f" {text} " if text else "   " for text in normalised]
    lengths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    codes = np.frombuffer("".join(padded).encode("utf-32-le"), dtype=np.uint32)
    trigrams = (
        codes[:-2] * np.uint32(0x9E3779B1) ^ codes[1:-1] * np.uint32(0x85EBCA77) ^ codes[2:] * np.uint32(0xC2B2AE3D)
    )
    trigrams ^= trigrams >> np.uint32(15)
    owners = np.repeat(np.arange(len(padded)), lengths)[:-2]
    inside = owners == np.repeat(np.arange(len(padded)), lengths)[2:]
    keyed = owners[inside].astype(np.uint64) << np.uint64(32) | trigrams[inside]
    keyed.sort()
    keyed = keyed[np.concatenate([[True], keyed[1:] != keyed[:-1]])]
    counts = np.bincount((keyed >> np.uint64(32)).astype(np.int64), minlength=len(padded))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Shingles((keyed & np.uint64(0xFFFFFFFF)).astype(np.uint32), starts)


def _minhash(shingles: Shingles, num_hashes: int) -> NDArray[np.uint32]:
    """Return signatures, (h, n): the smallest value of each hash function over a text's shingles."""
    random = np.random.default_rng(20090101)  # part of the method, not a setting: any fixed family will do
    factors = random.integers(1, 1 << 32, size=num_hashes, dtype=np.uint32) | np.uint32(1)
    offsets = random.integers(0, 1 << 32, size=num_hashes, dtype=np.uint32)
    signatures = np.empty((num_hashes, len(shingles.starts) - 1), dtype=np.uint32)
    for row, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        hashed = (shingles.values ^ offset) * factor
        hashed ^= hashed >> np.uint32(16)
        signatures[row] = np.minimum.reduceat(hashed, shingles.starts[:-1])
    return signatures


def _sketch(signatures: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the lowest byte of each value of (h, n) signatures, (n, h)."""
    return np.ascontiguousarray(signatures.astype(np.uint8).T)


def _hash_rows(rows: NDArray[np.uint32]) -> NDArray[np.uint64]:
    keys = np.zeros(rows.shape[1], dtype=np.uint64)
    for row in rows:
        keys = (keys ^ row) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _similar_pairs(
    shingles: Shingles, sketches: NDArray[np.uint8], first: IntArray, second: IntArray, threshold: float
) -> tuple[IntArray, IntArray]:
    """Return those of p pairs whose Jaccard similarity is at least `threshold`.

    `sketches`, (n, h), hold the lowest byte of each signature value (b-bit minwise hashing, Li and Koenig 2010): cheap
    to compare, they spare most pairs the exact count.
    """
    sizes = np.diff(shingles.starts)
    smaller, larger = np.minimum(sizes[first], sizes[second]), np.maximum(sizes[first], sizes[second])
    possible = smaller >= threshold * larger
    first, second = first[possible], second[possible]
    # The share of equal bytes estimates the similarity with a standard deviation of at most 0.045.
    enough = (threshold - 4 * 0.045) * sketches.shape[1]
    kept = []
    # So many pairs at a time that their sketches and shingles, of which long texts have thousands, fit into memory.
    costs = np.cumsum(np.maximum(sizes[first] + sizes[second], sketches.shape[1])) // CHUNK
    for pairs in np.split(np.arange(len(first)), np.flatnonzero(np.diff(costs)) + 1):
        a, b = first[pairs], second[pairs]
        close = np.count_nonzero(sketches[a] == sketches[b], axis=1) >= enough
        a, b = a[close], b[close]
        shared = _count_shared(shingles, a, b)
        similar = shared >= threshold * (sizes[a] + sizes[b] - shared)
        kept.append((a[similar], b[similar]))
    empty = np.zeros(0, dtype=np.int64)
    return (
        np.concatenate([empty, *(pair[0] for pair in kept)]),
        np.concatenate([empty, *(pair[1] for pair in kept)]),
    )


def _count_shared(shingles: Shingles, first: IntArray, second: IntArray) -> IntArray:
    """Return how many shingles each pair of texts shares, (p,)."""
    keyed = []
    for side in (first, second):
        sizes = shingles.starts[side + 1] - shingles.starts[side]
        pair = np.repeat(np.arange(len(side)), sizes)
        inside = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        values = shingles.values[np.repeat(shingles.starts[side], sizes) + inside]
        keyed.append(pair.astype(np.uint64) << np.uint64(32) | values)
    both = np.sort(np.concatenate(keyed))
    shared = both[1:][both[1:] == both[:-1]]
    return np.bincount((shared >> np.uint64(32)).astype(np.int64), minlength=len(first))
