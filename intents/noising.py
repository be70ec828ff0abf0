"""Texts as they come from a hurried keyboard: more training texts without more labels."""

from collections.abc import Sequence

import numpy as np

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# Left and right on a QWERTY keyboard.
_NEIGHBOURS = {key: row[max(at - 1, 0) : at] + row[at + 1 : at + 2] for row in _ROWS for at, key in enumerate(row)}
_SHORTEST = 3  # letters of a word that may be misspelt


def mistype(text: str, slips: float, chance: np.random.Generator) -> str:
    """Return `text` with a slip in about that share of its words of three letters or more.

    A slip swaps two neighbouring letters, leaves one out, doubles one, or hits the key beside it. These are the four of
    Pruthi et al. 2019, "Combating adversarial misspellings", but that a letter added is the one before.
    """
    words = text.split(" ")
    for at, word in enumerate(words):
        if sum(letter.isalpha() for letter in word) >= _SHORTEST and chance.random() < slips:
            words[at] = _slip(word, chance)
    return " ".join(words)


def _slip(word: str, chance: np.random.Generator) -> str:
    at = int(chance.integers(len(word) - 1))
    kind = chance.integers(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    neighbours = _NEIGHBOURS.get(word[at].lower(), "")
    if kind == 2 or not neighbours:
        return word[: at + 1] + word[at:]
    return word[:at] + neighbours[chance.integers(len(neighbours))] + word[at + 1 :]


def mistyped_copies(
    texts: Sequence[str], share: float, slips: float, chance: np.random.Generator
) -> list[tuple[int, str]]:
    """Return (position, text) of mistyped copies of that `share` of `texts`, drawn at random, in their order.

    A copy that came out like its original is left out.
    """
    chosen = np.sort(chance.permutation(len(texts))[: round(share * len(texts))])
    copies = [(int(at), mistype(texts[at], slips, chance)) for at in chosen]
    return [(at, copy) for at, copy in copies if copy != texts[at]]
