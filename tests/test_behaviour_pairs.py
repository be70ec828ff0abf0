"""The pairs of data/behaviour/pairs.csv have the shape that the check of a trained classifier relies on.

A pair differs in one aspect: one that must change the intent (open or close, mine or the passenger's),
or one that must not (politeness, a typing slip).
"""

import csv
from collections import Counter
from pathlib import Path

import pytest

from intents.duplicates import normalise

DATA_DIR = Path(__file__).parent.parent / "data"
PAIRS_PATH = DATA_DIR / "behaviour/pairs.csv"
CSV_PATH = DATA_DIR / "raw/driver_intents.csv"
HEADER = ["pair", "aspect", "text_a", "intent_a", "text_b", "intent_b"]
DIFFERENT_INTENTS = {
    "open_close",
    "do_dont",
    "mine_passenger",
    "now_later",
    "request_question",
    "device",
    "real_mention",
}
SAME_INTENT = {"politeness", "filler", "typo", "case", "punctuation", "recogniser_noise"}


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    return _read(PAIRS_PATH)


def test_pairs_have_the_header_lf_line_ends_and_running_numbers(pairs: list[dict[str, str]]) -> None:
    assert b"\r" not in PAIRS_PATH.read_bytes()
    assert list(pairs[0]) == HEADER
    assert [pair["pair"] for pair in pairs] == [str(number) for number in range(1, len(pairs) + 1)]


def test_there_are_at_least_300_pairs_and_20_of_each_aspect(pairs: list[dict[str, str]]) -> None:
    counts = Counter(pair["aspect"] for pair in pairs)
    assert set(counts) == DIFFERENT_INTENTS | SAME_INTENT
    assert counts.total() >= 300
    assert min(counts.values()) >= 20


def test_every_intent_is_one_of_the_data_set(pairs: list[dict[str, str]]) -> None:
    known = {row["intent"] for row in _read(CSV_PATH)}
    assert {pair[side] for pair in pairs for side in ("intent_a", "intent_b")} <= known


def test_the_aspect_says_whether_the_intents_differ(pairs: list[dict[str, str]]) -> None:
    wrong = [
        pair["pair"]
        for pair in pairs
        if (pair["intent_a"] != pair["intent_b"]) != (pair["aspect"] in DIFFERENT_INTENTS)
    ]
    assert wrong == []


def test_the_texts_of_a_pair_differ_and_no_pair_occurs_twice(pairs: list[dict[str, str]]) -> None:
    assert [pair["pair"] for pair in pairs if pair["text_a"] == pair["text_b"]] == []
    assert len({frozenset((pair["text_a"], pair["text_b"])) for pair in pairs}) == len(pairs)


def test_no_text_of_a_pair_is_in_the_data_set(pairs: list[dict[str, str]]) -> None:
    seen = {normalise(row["text"]) for row in _read(CSV_PATH)}
    texts = [pair[side] for pair in pairs for side in ("text_a", "text_b")]
    assert [text for text in texts if normalise(text) in seen] == []
