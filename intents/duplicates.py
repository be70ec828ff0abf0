"""Finds groups of near-duplicate texts without comparing all pairs.

MinHash signatures with banded locality-sensitive hashing (Broder 1997, "On the resemblance and containment of
documents"; Leskovec et al., "Mining of Massive Datasets", chapter 3) propose pairs, the exact Jaccard similarity of the
texts' character trigrams decides. All steps are vectorised over the whole collection.

Shapes: n texts, s shingles over all of them, h hash functions, p proposed pairs.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGE = 100_000  # texts from which on chance collisions would cost more than the last 0.3 % of recall is worth
_WINDOW = 64  # in a crowded bucket a text is compared with this many neighbours
_CHUNK = 1 << 22
_FIRST_COMPARED = 64  # known texts of a group
_NOT_WORD = re.compile(r"[\W_]+")
_ASCII_SIGN = re.compile(r"[#$+<=>|~]")  # those for which _is_sign holds

IntArray = NDArray[np.int64]


def normalise(text: str) -> str:
    """Return `text` in NFKC, case-folded, with every run of characters that are no letter or digit as one blank.

    Signs that mean something of their own (+, #, currencies, emojis) stay: C++ is not C#. So do the characters of a
    text without any letter or digit.
    """
    if text.isascii() and not _ASCII_SIGN.search(text):
        folded = text.casefold()
        return _NOT_WORD.sub(" ", folded).strip() or folded.strip()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub(_blank, folded).strip() or folded.strip()


def _blank(run: re.Match[str]) -> str:
    # Marks that follow a letter are part of the word: without its vowel signs one Hindi word is as good as the next.
    characters = run.group()
    num_marks = 0
    if run.start() > 0:
        marks = itertools.takewhile(lambda character: unicodedata.category(character)[0] == "M", characters)
        num_marks = sum(1 for _ in marks)
    rest = characters[num_marks:]
    signs = "".join(character for character in rest if _is_sign(character))
    return characters[:num_marks] + (f" {signs} " if signs else " " if rest else "")


def _is_sign(character: str) -> bool:
    return character == "#" or unicodedata.category(character) in ("Sc", "Sm", "So")


@dataclass(frozen=True)
class _Shingles:
    """Sorted distinct trigram hashes of each text: text i owns `values[starts[i]:starts[i + 1]]`."""

    values: NDArray[np.uint32]  # (s,)
    starts: IntArray  # (n + 1,)


def near_duplicate_groups(texts: Sequence[str], threshold: float) -> IntArray:
    """Return a group number for each of n texts, (n,); texts in one group are linked by near-duplicate pairs.

    Two texts are near-duplicates when the Jaccard similarity of the character trigrams of their normalised forms is
    at least `threshold`. A group is numbered by the position of its first text.
    """
    if not len(texts):
        return np.zeros(0, dtype=np.int64)
    positions: dict[str, int] = {}  # of equal texts only the first takes part
    distinct_of = np.array([positions.setdefault(normalise(text), len(positions)) for text in texts])
    _, first_of = np.unique(distinct_of, return_index=True)
    groups = _group_distinct(list(positions), threshold)
    return first_of[groups][distinct_of]


def pairs_across(
    texts: Sequence[str], groups_n: IntArray, sides_n: IntArray, threshold: float
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield the positions of near-duplicate pairs of n texts on different sides, the lower side first, part by part.

    `groups_n` are their groups at this threshold. A group may be a long chain: a pair is of texts that are themselves
    alike. There may be far more pairs than fit into memory.
    """
    from scipy.sparse import csr_array

    order = np.lexsort((sides_n, groups_n))
    starts = np.flatnonzero(np.diff(groups_n[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    lowest, highest = sides_n[order[starts]], sides_n[order[starts + sizes - 1]]
    group_of = np.repeat(np.arange(len(starts)), sizes)
    mixed = (lowest != highest)[group_of]
    chosen, group_of = order[mixed], group_of[mixed]
    if not len(chosen):
        return
    sides, lowest, highest = sides_n[chosen], lowest[group_of], highest[group_of]
    shingles = _shingle([normalise(texts[position]) for position in chosen])
    sizes = np.diff(shingles.starts)
    # A column for each trigram of each group, so that only texts of one group share any.
    keyed = np.repeat(group_of, sizes).astype(np.uint64) << np.uint64(32) | shingles.values
    columns, column_of = np.unique(keyed, return_inverse=True)
    shape = (len(chosen), len(columns))
    texts_by_trigrams = csr_array((np.ones(len(keyed), dtype=np.int32), column_of, shingles.starts), shape=shape)
    lower, higher = np.flatnonzero(sides < highest), np.flatnonzero(sides > lowest)
    trigrams_by_texts = texts_by_trigrams[higher].T.tocsr()
    costs = np.cumsum(np.bincount(group_of[higher])[group_of[lower]]) // _CHUNK
    for rows in np.split(lower, np.flatnonzero(np.diff(costs)) + 1):
        shared = (texts_by_trigrams[rows] @ trigrams_by_texts).tocoo()
        first, second = rows[shared.row], higher[shared.col]
        similar = shared.data >= threshold * (sizes[first] + sizes[second] - shared.data)
        similar &= sides[first] < sides[second]
        yield chosen[first[similar]], chosen[second[similar]]


def like_any(texts: Sequence[str], groups_n: IntArray, known_n: NDArray[np.bool_], threshold: float) -> IntArray:
    """Return the positions of those of n texts that are not known, but near-duplicates of a known one, (m,).

    `groups_n` are their groups at this threshold.
    """
    first: dict[tuple[bool, str], int] = {}  # of equal texts one takes part
    distinct_of = np.array(
        [first.setdefault((known, normalise(text)), len(first)) for known, text in zip(known_n, texts, strict=True)],
        dtype=np.int64,
    )
    _, position_of = np.unique(distinct_of, return_index=True)
    chosen, groups, known = [texts[position] for position in position_of], groups_n[position_of], known_n[position_of]
    alike = np.zeros(len(position_of), dtype=bool)
    # Most texts of a large group, phrases of one template for instance, are like one of a few of it.
    for compared in (known & (_ranks(groups, known) < _FIRST_COMPARED), known):
        part = np.flatnonzero(compared | ~(known | alike))
        pairs = pairs_across([chosen[i] for i in part], groups[part], np.where(known[part], 0, 1), threshold)
        for _, found in pairs:
            alike[part[found]] = True
    return np.flatnonzero(alike[distinct_of])


def _ranks(groups_n: IntArray, known_n: NDArray[np.bool_]) -> IntArray:
    """Return how many known texts of its group stand before each of n texts, (n,)."""
    order = np.argsort(groups_n, kind="stable")
    before: IntArray = np.cumsum(known_n[order]) - known_n[order]
    starts = np.flatnonzero(np.diff(groups_n[order], prepend=-1))
    ranks = np.empty(len(groups_n), dtype=np.int64)
    ranks[order] = before - np.repeat(before[starts], np.diff(starts, append=len(order)))
    return ranks


def unlike_known(texts: Sequence[str], known: Sequence[str], threshold: float) -> tuple[IntArray, IntArray]:
    """Return the positions of the m `texts` that are no near-duplicate of a known one, (m,), and their groups, (m,)."""
    everything = [*known, *texts]
    groups_n = near_duplicate_groups(everything, threshold)
    alike = like_any(everything, groups_n, np.arange(len(everything)) < len(known), threshold)
    positions = np.setdiff1d(np.arange(len(texts)), alike - len(known))
    return positions, groups_n[len(known) + positions]


def _group_distinct(texts: list[str], threshold: float) -> IntArray:
    num_bands, rows_per_band = _choose_bands(len(texts), threshold)
    groups: IntArray = np.arange(len(texts), dtype=np.int64)
    shingles = _shingle(texts)
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


def _shingle(normalised: list[str]) -> _Shingles:
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
    return _Shingles((keyed & np.uint64(0xFFFFFFFF)).astype(np.uint32), starts)


def _minhash(shingles: _Shingles, num_hashes: int) -> NDArray[np.uint32]:
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
    shingles: _Shingles, sketches: NDArray[np.uint8], first: IntArray, second: IntArray, threshold: float
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
    costs = np.cumsum(np.maximum(sizes[first] + sizes[second], sketches.shape[1])) // _CHUNK
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


def _count_shared(shingles: _Shingles, first: IntArray, second: IntArray) -> IntArray:
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
