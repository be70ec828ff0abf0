"""Rows become splits: checked, deduplicated, carved without leaks."""

import pytest

from intents.preparing import SCHEMA
from tests.preparing_fixtures import PLAIN, run, table, texts_of


def test_every_row_ends_in_one_split_with_its_label_and_row_number():
    prepared = run(table(PLAIN))
    assert prepared.intents == ["close", "open", "other"]
    assert prepared.rejected == []
    found = []
    for columns in prepared.splits.values():
        assert list(columns) == SCHEMA.names
        assert [prepared.intents[label] for label in columns["label"]] == columns["intent"]
        assert columns["row"] == sorted(columns["row"])
        found += zip(columns["row"], columns["text"], columns["intent"], strict=True)
    assert sorted(found) == [(number, *row) for number, row in enumerate(PLAIN, start=2)]
    assert prepared.metrics["rows"] == {split: len(columns["text"]) for split, columns in prepared.splits.items()}
    assert prepared.metrics["leaked_pairs"] == 0


def test_carved_splits_have_the_shares_of_each_intent():
    per_intent = {row["intent"]: row for row in run(table(PLAIN)).metrics["rows_per_intent"]}
    for intent in ("close", "open", "other"):
        counts = {split: per_intent[intent][split] for split in ("train", "validation", "test")}
        assert counts == {"train": 9, "validation": 3, "test": 4}


def test_exact_repeats_are_listed_and_the_first_is_kept():
    prepared = run(table([*PLAIN, PLAIN[0], PLAIN[5], PLAIN[0]]))
    assert prepared.rejected == [
        ("data/some.csv", number, *PLAIN[i], "exact repeat") for number, i in ((50, 0), (51, 5), (52, 0))
    ]
    assert prepared.metrics["rejected"] == {"exact_repeat": 3}
    assert sum(prepared.metrics["rows"].values()) == len(PLAIN)


def test_excluded_intents_are_left_out_and_listed():
    prepared = run(table(PLAIN), exclude_intents=("other",))
    assert prepared.intents == ["close", "open"]
    assert {reason for *_, reason in prepared.rejected} == {"excluded intent"}
    assert len(prepared.rejected) == 16


def test_rejects_an_unknown_excluded_intent():
    with pytest.raises(
        ValueError,
        match=r"exclude_intents: the data has no intent 'lights'; it has: close, open, other \(set it",
    ):
        run(table(PLAIN), exclude_intents=("lights",))


CONFLICT = [("OPEN, left window!", "close")]


def test_a_conflict_names_both_rows_and_the_remedy():
    with pytest.raises(ValueError) as caught:
        run(table(PLAIN + CONFLICT))
    message = str(caught.value)
    assert "data/some.csv, row 2: open; data/some.csv, row 50: close: the same text 'open left window'" in message
    assert "(mend the file, or set prepare.conflicts=drop)" in message


def test_signs_make_another_text_and_a_conflict_shows_both_spellings():
    rows = [("great \U0001f44d", "open"), ("great \U0001f44e", "close"), ("c++ crash", "open"), ("c# crash", "close")]
    run(table([*PLAIN, *rows]))
    with pytest.raises(ValueError, match=r"the same text 'it, now' and 'It now\?' under two intents"):
        run(table([*PLAIN, ("it, now", "open"), ("It now?", "close")]))


def test_conflicts_can_be_dropped_with_all_their_rows():
    prepared = run(table(PLAIN + CONFLICT), conflicts="drop")
    assert [(row, reason) for _, row, _, _, reason in prepared.rejected] == [
        (2, "same text under two intents"),
        (50, "same text under two intents"),
    ]


def test_a_conflict_with_an_excluded_intent_is_none():
    rows = [*PLAIN, ("open left window", "lights")]
    assert "open left window" in texts_of(run(table(rows), exclude_intents=("lights",)), "train", "validation", "test")


def test_near_duplicates_never_land_in_two_splits():
    variants = [(f"{text}{end}", intent) for text, intent in PLAIN for end in ("", "!", " s")]
    for seed in range(5):
        prepared = run(table(variants), seed=seed)
        assert prepared.metrics["leaked_pairs"] == 0
        assert prepared.metrics["near_duplicate_groups"] > 0
        stems = [{text.removesuffix("!").removesuffix(" s") for text in texts_of(prepared, s)} for s in prepared.splits]
        assert not stems[0] & stems[1] and not stems[0] & stems[2] and not stems[1] & stems[2]


def test_an_intent_with_too_few_different_examples_is_named_with_the_remedy():
    rows = [*PLAIN, ("honk the horn", "honk"), ("Honk the horn!", "honk"), ("beep", "honk")]
    with pytest.raises(ValueError) as caught:
        run(table(rows))
    assert (
        "intent 'honk' has 3 example(s), in 2 group(s) linked by near-duplicates; it needs 3 groups, one each for test,"
        " validation, train: add other examples, raise prepare.near_duplicate_threshold, or list it in"
        " prepare.exclude_intents" in str(caught.value)
    )
    with pytest.raises(ValueError, match="'honk' has 2 .*: add other examples, or list it in prepare.exclude_intents"):
        run(table(rows[:-1]))


def test_intents_that_look_the_same_are_named():
    with pytest.raises(ValueError, match=r"the intents 'Ku\\u0308che' and 'K\\xfcche' look the same \(Küche\)"):
        run(table([*PLAIN, ("the oven", "Küche"), ("the stove", "Ku\u0308che")]))


def test_where_no_row_is_left_it_says_why():
    with pytest.raises(ValueError, match="no row is left to train on: 1 excluded intent"):
        run(table([("open it", "open")]), exclude_intents=("open",))
    with pytest.raises(ValueError, match="no row is left to train on: 2 same text under two intents"):
        run(table([("open it", "open"), ("open it", "shut")]), conflicts="drop")


def test_rejects_a_single_intent():
    with pytest.raises(ValueError, match=r"the data has 1 intent\(s\) to train on; a classifier needs at least 2"):
        run(table(PLAIN[:16]))


def test_problems_of_all_kinds_and_files_come_in_one_message():
    official = table([("fly away", "fly")], "data/test.csv", "test")
    official.complain(9, "empty text")
    first = table(PLAIN + CONFLICT)
    first.complain(60, "empty intent")
    with pytest.raises(ValueError) as caught:
        run(first, official, exclude_intents=("lights",))
    message = str(caught.value)
    assert message.startswith("5 problem(s)")
    for part in (
        "some.csv, row 60",
        "test.csv, row 9",
        "no intent 'lights'",
        "two intents",
        "unknown intent 'fly'",
    ):
        assert part in message


def test_adding_a_row_hardly_moves_others(driver_texts):
    rows = list(dict.fromkeys(driver_texts))[::6]
    before, after = (
        run(table(rows)),
        run(table([*rows, ("yodel from the mountain top, jukebox", "no_intent")])),
    )

    def where(prepared):
        return {text: split for split, columns in prepared.splits.items() for text in columns["text"]}

    old, new = where(before), where(after)
    assert sum(old[text] != new[text] for text in old) <= 2


def test_texts_in_other_alphabets_pass_through_unchanged():
    rows = [
        *PLAIN,
        *((f"今日は{i}番の窓を開けて🚗", "open") for i in range(3)),
        ("दिन बताओ", "open"),
        ("दान बताओ", "close"),
    ]
    prepared = run(table(rows), threshold=0.95)
    assert {text for text, _ in rows} == texts_of(prepared, "train", "validation", "test")
