from pathlib import Path

import pytest

from intents.preparing import SCHEMA, prepare
from intents.rows import RawRows

VERBS = ["open", "lower", "shut", "raise", "wash", "move"]
THINGS = [
    "left window",
    "rear seat",
    "glove box",
    "sun roof",
    "fuel cap",
    "hand brake",
    "trunk lid",
    "arm rest",
]
INTENT_OF = {
    "open": "open",
    "lower": "open",
    "shut": "close",
    "raise": "close",
    "wash": "other",
    "move": "other",
}
PLAIN = [(f"{verb} {thing}", INTENT_OF[verb]) for verb in VERBS for thing in THINGS]  # 16 texts of each intent


def table(rows, path="data/some.csv"):
    """Rows are (text, intent) or (text, intent, split)."""
    texts, intents, splits = zip(*((*row, "")[:3] for row in rows), strict=True)
    numbers = list(range(2, len(rows) + 2))
    return RawRows(Path(path), numbers, list(texts), list(intents), [""] * len(rows), list(splits))


def run(*tables, **changes):
    settings = {
        "exclude_intents": (),
        "out_of_scope_intent": None,
        "train_on_out_of_scope": True,
        "conflicts": "error",
        "shares": {"validation": 0.2, "test": 0.25},
        "threshold": 0.7,
        "drop_near_official": True,
        "seed": 0,
    }
    return prepare(tables, **(settings | changes))


def texts_of(prepared, *splits):
    return {text for split in splits for text in prepared.splits[split]["text"]}


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


def test_conflicts_can_be_dropped_with_all_their_rows():
    prepared = run(table(PLAIN + CONFLICT), conflicts="drop")
    assert [(row, reason) for _, row, _, _, reason in prepared.rejected] == [
        (2, "same text under two intents"),
        (50, "same text under two intents"),
    ]


def test_an_official_row_is_never_dropped_for_a_conflict():
    official = table(CONFLICT, "data/test.csv")
    official.splits = ["test"]
    prepared = run(table(PLAIN), official, conflicts="drop")
    assert texts_of(prepared, "test") == {"OPEN, left window!"}
    assert [(file, row) for file, row, *_ in prepared.rejected] == [("data/some.csv", 2)]


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


def test_the_split_column_decides_and_the_rest_is_carved():
    rows = [(*row, "test" if i % 4 == 0 else "train") for i, row in enumerate(PLAIN)]
    prepared = run(table(rows))
    assert texts_of(prepared, "test") == {text for text, _, split in rows if split == "test"}
    assert prepared.metrics["rows"]["validation"] == pytest.approx(0.2 * 36, abs=2)


def test_with_all_splits_named_nothing_is_carved():
    names = ["train", "validation", "test"]
    rows = [(*row, names[i % 3]) for i, row in enumerate(PLAIN)]
    prepared = run(table(rows))
    for name in names:
        assert texts_of(prepared, name) == {text for text, _, split in rows if split == name}


def test_a_row_without_split_beside_others_with_one_is_named():
    rows = [(*row, "train") for row in PLAIN[:-1]] + [PLAIN[-1]]
    with pytest.raises(ValueError, match="data/some.csv, row 49: no split, where other rows of the file have one"):
        run(table(rows))


def official_test():
    """Two test rows: a near-duplicate of row 2 of PLAIN, and one like none."""
    official = table([("please open left window", "open"), ("a quite different wish", "close")], "data/test.csv")
    official.splits = ["test", "test"]
    return official


def test_near_duplicates_of_official_test_rows_are_dropped():
    prepared = run(table(PLAIN), official_test(), threshold=0.6)
    assert prepared.rejected == [("data/some.csv", 2, *PLAIN[0], "near-duplicate of a test row")]
    assert prepared.metrics["rejected"] == {"near_duplicate_of_a_test_row": 1}
    assert prepared.metrics["leaked_pairs"] == 0
    assert texts_of(prepared, "test") == {"please open left window", "a quite different wish"}


def test_near_duplicates_of_official_test_rows_can_be_kept_and_are_counted():
    prepared = run(table(PLAIN), official_test(), threshold=0.6, drop_near_official=False)
    assert prepared.rejected == []
    assert prepared.metrics["leaked_pairs"] == 1
    assert "open left window" in texts_of(prepared, "train", "validation")


def test_an_exact_copy_of_a_test_row_leaves_training_not_the_test():
    official = table([PLAIN[0]], "data/test.csv")
    official.splits = ["test"]
    prepared = run(table(PLAIN), official)
    assert texts_of(prepared, "test") == {PLAIN[0][0]}
    assert PLAIN[0][0] not in texts_of(prepared, "train", "validation")


def test_a_validation_row_like_a_test_row_leaves_validation():
    validation = table([PLAIN[0], ("some other thing entirely", "open")], "data/validation.csv")
    validation.splits = ["validation"] * 2
    test = table([PLAIN[0]], "data/test.csv")
    test.splits = ["test"]
    prepared = run(table(PLAIN[1:]), validation, test)
    assert texts_of(prepared, "validation") == {"some other thing entirely"}
    assert prepared.metrics["leaked_pairs"] == 0


def test_rejects_an_unknown_intent_in_official_rows():
    official = table([("fly away", "fly")], "data/test.csv")
    official.splits = ["test"]
    with pytest.raises(ValueError, match="data/test.csv, row 2: unknown intent 'fly', no training row has it"):
        run(table(PLAIN), official)


def test_an_intent_with_too_few_different_examples_is_named_with_the_remedy():
    rows = [*PLAIN, ("honk the horn", "honk"), ("Honk the horn!", "honk"), ("beep", "honk")]
    with pytest.raises(ValueError) as caught:
        run(table(rows))
    assert (
        "intent 'honk' has 2 example(s) that are not near-duplicates of one another; it needs 3, one each for"
        " test, validation, train: add examples or list it in prepare.exclude_intents" in str(caught.value)
    )


def test_rejects_a_single_intent():
    with pytest.raises(ValueError, match=r"the data has 1 intent\(s\) to train on; a classifier needs at least 2"):
        run(table(PLAIN[:16]))


def test_problems_of_all_kinds_and_files_come_in_one_message():
    official = table([("fly away", "fly")], "data/test.csv")
    official.splits = ["test"]
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
    rows = list(dict.fromkeys(driver_texts))
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


OUT_OF_SCOPE = [(f"{word} the {thing}", "oos") for word in ("sing about", "paint") for thing in THINGS]


def test_out_of_scope_rows_for_thresholds_alone_leave_train_for_validation():
    prepared = run(table([*PLAIN, *OUT_OF_SCOPE]), out_of_scope_intent="oos", train_on_out_of_scope=False)
    assert prepared.intents == ["close", "oos", "open", "other"]  # the name stays: no reader needs to know
    assert "oos" not in prepared.splits["train"]["intent"]
    both = texts_of(prepared, "validation", "test")
    assert {text for text, _ in OUT_OF_SCOPE} <= both
    assert prepared.metrics["leaked_pairs"] == 0
    as_class = run(table([*PLAIN, *OUT_OF_SCOPE]), out_of_scope_intent="oos")
    assert "oos" in as_class.splits["train"]["intent"]
    assert texts_of(prepared, "test") == texts_of(as_class, "test")


def test_an_out_of_scope_row_like_a_training_row_is_left_out_and_never_leaks():
    names = ["train", "validation", "test"]
    rows = [(*row, names[i % 3]) for i, row in enumerate(PLAIN)]
    near = (f"{PLAIN[0][0]} s", "oos", "train")
    prepared = run(table([*rows, near, *((*row, "validation") for row in OUT_OF_SCOPE)]),
                   out_of_scope_intent="oos", train_on_out_of_scope=False, threshold=0.6)  # fmt: skip
    assert [(text, reason) for *_, text, _, reason in prepared.rejected] == [
        (near[0], "near-duplicate of a training row")
    ]
    assert prepared.metrics["leaked_pairs"] == 0


def test_official_out_of_scope_rows_need_none_in_train():
    names = ["train", "validation", "test"]
    rows = [(*row, names[i % 3]) for i, row in enumerate(PLAIN)]
    oos = [(*row, "validation" if i % 2 else "test") for i, row in enumerate(OUT_OF_SCOPE)]
    prepared = run(table([*rows, *oos]), out_of_scope_intent="oos", train_on_out_of_scope=False)
    assert prepared.metrics["rows"]["train"] == 16


def test_an_out_of_scope_intent_that_the_data_lacks_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"prepare.out_of_scope_intent: the data has no intent 'oos'; it has: close"):
        run(table(PLAIN), out_of_scope_intent="oos")
