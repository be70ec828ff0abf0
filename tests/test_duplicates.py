import random

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from intents import duplicates
from intents.duplicates import like_any, near_duplicate_groups, normalise, pairs_across, unlike_known


def trigrams(text):
    padded = f" {normalise(text)} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def all_similar_pairs(texts, threshold):
    """Every pair at or above the threshold, two arrays, from the exact counts of all n * n pairs."""
    sets = [trigrams(text) for text in texts]
    columns = {}
    indices = [columns.setdefault(trigram, len(columns)) for found in sets for trigram in found]
    sizes = np.array([len(found) for found in sets])
    pointers = np.concatenate([[0], np.cumsum(sizes)])
    matrix = csr_array((np.ones(len(indices), np.int32), indices, pointers), shape=(len(texts), len(columns)))
    shared = (matrix @ matrix.T).tocoo()
    first, second = shared.coords
    similar = shared.data >= threshold * (sizes[first] + sizes[second] - shared.data)
    return first[similar], second[similar]


def groups_of(pairs, size):
    """Group numbers by position of the first member."""
    graph = csr_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    _, first_of = np.unique(components, return_index=True)
    return first_of[components]


@pytest.fixture(scope="module")
def texts(driver_texts):
    """Three thousand texts: real ones, and copies of them with small edits, some in other alphabets."""
    choice = random.Random(7)
    texts = [text for text, _ in choice.sample(driver_texts, 1500)]
    for text in texts[:1500]:
        at = choice.randrange(len(text) + 1)
        edits = [
            text[:at] + choice.choice("aeé今ß ") + text[at:],
            text[:at] + text[at + 1 :],
            text.upper() + "!!",
            " ".join(choice.sample(text.split(), len(text.split()))),
            f"{text} {choice.choice(['please', 'now', 'сейчас', '🚗', 'if you would be so kind'])}",
        ]
        texts.append(choice.choice(edits))
    return texts


@pytest.mark.parametrize("threshold", [0.65, 0.7, 0.9, 1.0])
def test_groups_are_those_of_comparing_all_pairs(texts, threshold):
    expected = groups_of(all_similar_pairs(texts, threshold), len(texts))
    assert len(texts) - len(set(expected)) > 200  # there is something to find
    np.testing.assert_array_equal(near_duplicate_groups(texts, threshold), expected)


@pytest.mark.parametrize("threshold", [0.35, 0.5])
def test_low_thresholds_miss_next_to_no_pair(texts, threshold):
    first, second = all_similar_pairs(texts, threshold)
    groups = near_duplicate_groups(texts, threshold)
    assert np.mean(groups[first] == groups[second]) > 0.999
    exact = groups_of((first, second), len(texts))
    assert len(set(zip(groups.tolist(), exact.tolist(), strict=True))) == len(set(groups.tolist()))  # none too large


def test_texts_that_differ_in_case_punctuation_and_form_only_are_one_group():
    texts = ["Open the window!", "open   the WINDOW", "ｏｐｅｎ the window", "close it"]
    assert near_duplicate_groups(texts, 1.0).tolist() == [0, 0, 0, 3]


def test_a_crowd_of_near_duplicates_is_one_group():
    texts = [f"turn the air conditioner on to a comfortable level, please, number {i}" for i in range(1000)]
    assert set(near_duplicate_groups(texts, 0.7).tolist()) == {0}


def test_short_empty_and_odd_texts_are_told_apart():
    texts = ["a", "b", "?", "!", "ok", "OK.", "今", "🚗", "🚗🚗"]
    assert near_duplicate_groups(texts, 0.7).tolist() == [0, 1, 2, 3, 4, 4, 6, 7, 8]
    assert near_duplicate_groups([], 0.7).tolist() == []
    assert near_duplicate_groups(["alone"], 0.7).tolist() == [0]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  What's UP?? ", "what s up"),
        ("Straße", "strasse"),
        ("cafe\u0301", "café"),
        ("ﬁne ①", "fine 1"),
        ("snake_case", "snake case"),
        ("?!", "?!"),
        ("thanks \u2764\ufe0f", "thanks \u2764"),
        ("C++, C# & -5 \u20ac!", "c ++ c # 5 \u20ac"),
        ("c++", "c ++"),
    ],
)
def test_normalises(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize("one, other", [("दिन", "दान"), ("ที่", "ทำ"), ("कि", "की")])
def test_words_that_differ_in_a_vowel_sign_stay_different(one, other):
    assert normalise(one) != normalise(other)
    assert " " not in normalise(one)


CHAIN = ["open the left window now", "open the left window please now", "open the left windows please now thanks"]


def test_only_what_is_itself_alike_is_a_pair_though_a_chain_links_more():
    groups = near_duplicate_groups(CHAIN, 0.7)
    assert set(groups.tolist()) == {0}
    ((first, second),) = pairs_across(CHAIN, groups, np.array([0, 1, 1]), 0.7)
    assert (first.tolist(), second.tolist()) == ([0], [1])
    assert unlike_known(CHAIN[1:], CHAIN[:1], 0.7)[0].tolist() == [1]


def test_pairs_across_are_those_of_an_exhaustive_search(monkeypatch):
    words = "open close the my left right window door please now on off".split()
    generator = np.random.default_rng(3)
    texts = [" ".join(generator.choice(words, 5)) for _ in range(300)]
    sides = generator.integers(0, 3, 300)
    monkeypatch.setattr(duplicates, "CHUNK", 1000)  # in several parts
    groups = near_duplicate_groups(texts, 0.6)
    parts = list(pairs_across(texts, groups, sides, 0.6))
    assert len(parts) > 5
    pairs = [pair for first, second in parts for pair in zip(first.tolist(), second.tolist(), strict=True)]
    grams = [{f" {normalise(text)} "[i : i + 3] for i in range(len(text))} for text in texts]
    expected = {
        (i, j)
        for i in range(300)
        for j in range(300)
        if sides[i] < sides[j] and len(grams[i] & grams[j]) >= 0.6 * len(grams[i] | grams[j])
    }
    assert len(expected) > 100
    assert len(pairs) == len(expected) and set(pairs) == expected
    alike = like_any([*texts, *texts], np.tile(groups, 2), np.tile(sides, 2) == 0, 0.6)
    once = {j for i, j in expected if sides[i] == 0}
    monkeypatch.setattr("intents.duplicates._FIRST_COMPARED", 2)
    assert like_any(texts, groups, sides == 0, 0.6).tolist() == sorted(once)
    assert alike.tolist() == sorted([*once, *(300 + j for j in once)])


def test_nothing_is_like_nothing():
    nothing = np.zeros(0, dtype=np.int64)
    assert list(pairs_across([], nothing, nothing, 0.7)) == []
    assert unlike_known([], ["open"], 0.7)[0].tolist() == unlike_known([], [], 0.7)[1].tolist() == []


def test_phrases_of_one_template_are_not_all_compared_with_one_another(monkeypatch):
    looked_at = []

    def counted(texts, groups_n, sides_n, threshold):
        looked_at.append(sum(sides_n == 0) * sum(sides_n == 1))
        return pairs_across(texts, groups_n, sides_n, threshold)

    monkeypatch.setattr("intents.duplicates.pairs_across", counted)
    texts = [f"hello i would like to know the status of my order number {i * 7919 % 10**6:06}" for i in range(3000)]
    known = np.arange(3000) < 1000
    assert like_any(texts, near_duplicate_groups(texts, 0.7), known, 0.7).tolist() == list(range(1000, 3000))
    assert sum(looked_at) < 0.1 * 1000 * 2000


@pytest.mark.parametrize(("first", "second"), [("=)", "=("), (">:(", ">:)"), ("^_^", "-_-")])
def test_emoticons_are_no_repeats_of_one_another(first, second):
    assert normalise(first) != normalise(second)
