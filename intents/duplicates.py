"""Near-duplicate texts: in groups, across splits, and like what is known already.

Two texts are near-duplicates when their normalised forms share most character trigrams (intents.minhash).

Shapes: n texts.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from intents.minhash import CHUNK, IntArray, group_distinct, shingle

_FIRST_COMPARED = 64  # known texts of a group
_NOT_WORD = re.compile(r"[\W_]+")
_ASCII_SIGN = re.compile(r"[#$+<=>|~]")  # those for which _is_sign holds


def normalise(text: str) -> str:
    """Return `text` in NFKC, case-folded, with every run of characters that are no letter or digit as one blank.

    Signs that mean something of their own (+, #, currencies, emojis) stay: C++ is not C#. So do the characters of a
    text without any letter or digit.
    """
    if text.isascii() and not _ASCII_SIGN.search(text):
        folded = text.casefold()
        return _NOT_WORD.sub(" ", folded).strip() or folded.strip()
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not any(map(str.isalnum, folded)):
        return folded.strip()
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
    groups = group_distinct(list(positions), threshold)
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
    shingles = shingle([normalise(texts[position]) for position in chosen])
    sizes = np.diff(shingles.starts)
    # A column for each trigram of each group, so that only texts of one group share any.
    keyed = np.repeat(group_of, sizes).astype(np.uint64) << np.uint64(32) | shingles.values
    columns, column_of = np.unique(keyed, return_inverse=True)
    shape = (len(chosen), len(columns))
    texts_by_trigrams = csr_array((np.ones(len(keyed), dtype=np.int32), column_of, shingles.starts), shape=shape)
    lower, higher = np.flatnonzero(sides < highest), np.flatnonzero(sides > lowest)
    trigrams_by_texts = texts_by_trigrams[higher].T.tocsr()
    costs = np.cumsum(np.bincount(group_of[higher])[group_of[lower]]) // CHUNK
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
