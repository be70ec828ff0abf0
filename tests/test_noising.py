import numpy as np
import pytest

from intents.noising import mistype, mistyped_copies


def chance():
    return np.random.default_rng(0)


def edits(word, other):
    """Return the Damerau-Levenshtein distance (swaps of neighbours count once)."""
    distances = {(i, 0): i for i in range(len(word) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(word) + 1):
        for j in range(1, len(other) + 1):
            same = word[i - 1] == other[j - 1]
            found = [distances[i - 1, j] + 1, distances[i, j - 1] + 1, distances[i - 1, j - 1] + (not same)]
            if i > 1 and j > 1 and word[i - 1] == other[j - 2] and word[i - 2] == other[j - 1]:
                found.append(distances[i - 2, j - 2] + 1)
            distances[i, j] = min(found)
    return distances[len(word), len(other)]


def test_every_word_has_one_slip_at_most_and_short_words_none():
    text = "please open my window a bit and drive on to the petrol station"
    drawn = chance()
    for _ in range(50):
        made = mistype(text, 1.0, drawn).split(" ")
        assert len(made) == len(text.split(" "))
        for word, slipped in zip(text.split(" "), made, strict=True):
            assert edits(word, slipped) <= (len(word) >= 3)


def test_slips_swap_leave_out_double_or_hit_the_key_beside():
    word, drawn = "glass", chance()
    made = {mistype(word, 1.0, drawn) for _ in range(500)}
    swapped = {"lgass", "galss", "glsas", "glass"}
    left_out = {"lass", "gass", "glss", "glas"}
    doubled = {"gglass", "gllass", "glaass", "glasss"}
    beside = {"flass", "hlass", "gkass", "glsss", "glaas", "glads"}  # the last letter stays, but for a swap
    assert made == swapped | left_out | doubled | beside


def test_the_share_of_words_with_a_slip_is_that_asked_for():
    text = " ".join(["windscreen"] * 4000)
    changed = sum(word != "windscreen" for word in mistype(text, 0.25, chance()).split(" "))
    assert changed / 4000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("text", ["", "a", "on", "123 456", "你好吗 朋友们呢", "A/C!!", "😀😀😀 café"])
def test_any_text_can_be_mistyped(text):
    assert isinstance(mistype(text, 1.0, chance()), str)


def test_copies_are_of_that_share_of_the_texts_and_differ_from_them():
    texts = [f"please lower window number {number}" for number in range(100)]
    copies = mistyped_copies(texts, 0.3, 1.0, chance())
    assert len(copies) == 30
    assert [at for at, _ in copies] == sorted({at for at, _ in copies})
    assert all(copy != texts[at] for at, copy in copies)
    assert mistyped_copies(texts, 0.3, 1.0, chance()) == copies


def test_no_share_makes_no_copies():
    assert mistyped_copies(["open the window"], 0.0, 0.5, chance()) == []
