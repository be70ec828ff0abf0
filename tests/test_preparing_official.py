"""Rows whose split is given, by a column or an official file, and rows of an intent that is out of scope."""

import pytest

from tests.preparing_fixtures import PLAIN, THINGS, run, table, texts_of


def test_an_official_row_is_never_dropped_for_a_conflict():
    official = table([("OPEN, left window!", "close")], "data/test.csv", "test")
    prepared = run(table(PLAIN), official, conflicts="drop")
    assert texts_of(prepared, "test") == {"OPEN, left window!"}
    assert [(file, row) for file, row, *_ in prepared.rejected] == [("data/some.csv", 2)]


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
    rows = [("please open left window", "open"), ("a quite different wish", "close")]
    return table(rows, "data/test.csv", "test")


def test_near_duplicates_of_official_test_rows_are_dropped():
    prepared = run(table(PLAIN), official_test(), threshold=0.6)
    assert prepared.rejected == [("data/some.csv", 2, *PLAIN[0], "near-duplicate of a test row")]
    assert prepared.metrics["rejected"] == {"near_duplicate_of_a_test_row": 1}
    assert prepared.metrics["leaked_pairs"] == 0
    assert texts_of(prepared, "test") == {"please open left window", "a quite different wish"}


def test_a_row_that_only_a_chain_links_to_a_test_row_stays():
    chain = ["open left window please", "open left windows please now", "open left windows please now thanks a lot"]
    rows = [*PLAIN, (chain[1], "open"), (chain[2], "open")]
    prepared = run(table(rows), table([(chain[0], "open")], "data/test.csv", "test"), threshold=0.6)
    assert chain[1] in {text for _, _, text, *_ in prepared.rejected}
    assert chain[2] in texts_of(prepared, "train", "validation")
    assert prepared.metrics["leaked_pairs"] == 0


def test_near_duplicates_of_official_test_rows_can_be_kept_and_are_counted():
    prepared = run(table(PLAIN), official_test(), threshold=0.6, drop_near_official=False)
    assert prepared.rejected == []
    assert prepared.metrics["leaked_pairs"] == 1
    assert "open left window" in texts_of(prepared, "train", "validation")


def test_an_exact_copy_of_a_test_row_leaves_training_not_the_test():
    prepared = run(table(PLAIN), table([PLAIN[0]], "data/test.csv", "test"))
    assert texts_of(prepared, "test") == {PLAIN[0][0]}
    assert PLAIN[0][0] not in texts_of(prepared, "train", "validation")


def test_a_validation_row_like_a_test_row_leaves_validation():
    rows = [PLAIN[0], ("some other thing entirely", "open")]
    validation, test = table(rows, "data/validation.csv", "validation"), table([PLAIN[0]], "data/test.csv", "test")
    prepared = run(table(PLAIN[1:]), validation, test)
    assert texts_of(prepared, "validation") == {"some other thing entirely"}
    assert prepared.metrics["leaked_pairs"] == 0


def test_rejects_an_unknown_intent_in_official_rows():
    official = table([("fly away", "fly")], "data/test.csv", "test")
    with pytest.raises(ValueError, match="data/test.csv, row 2: unknown intent 'fly', no training row has it"):
        run(table(PLAIN), official)


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


def test_of_out_of_scope_rows_that_a_chain_links_to_training_rows_only_those_alike_are_left_out():
    names = ["train", "validation", "test"]
    rows = [(*row, names[i % 3]) for i, row in enumerate(PLAIN)]
    chain = ["open left window please", "open left windows please now", "open left windows please now thanks a lot"]
    links = [(chain[0], "open", "train"), (chain[1], "oos", "train"), (chain[2], "oos", "train")]
    prepared = run(table([*rows, *links, (*OUT_OF_SCOPE[0], "validation")]),
                   out_of_scope_intent="oos", train_on_out_of_scope=False, threshold=0.6)  # fmt: skip
    assert [(text, reason) for *_, text, _, reason in prepared.rejected] == [
        (chain[1], "near-duplicate of a training row")
    ]
    assert chain[2] in texts_of(prepared, "validation")
    assert prepared.metrics["leaked_pairs"] == 0


def test_an_intent_whose_rows_are_all_near_duplicates_of_official_ones_is_named():
    rare = [("please open the old hatch", "rare"), ("please open the old hatches", "rare")]
    official = table([("please open the old hatch now", "other")], "data/test.csv", "test")
    with pytest.raises(ValueError, match="intent 'rare' has 0 example"):
        run(table([*PLAIN, *rare]), official, threshold=0.6)
    for use in (True, False):  # of an intent out of scope none would be left to choose thresholds by
        with pytest.raises(ValueError, match="intent 'rare' has 0 example"):
            run(table([*PLAIN, *rare]), official, threshold=0.6, out_of_scope_intent="rare", train_on_out_of_scope=use)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_official_split_of_nothing_but_what_is_not_trained_is_refused(split):
    rows = [*PLAIN, *OUT_OF_SCOPE[:4]]
    official = table(OUT_OF_SCOPE[4:8], f"data/{split}.csv", split)
    with pytest.raises(ValueError, match=f"all official {split} rows are 'oos', which prepare.out_of_scope_use=thresh"):
        run(table(rows), official, out_of_scope_intent="oos", train_on_out_of_scope=False)
    run(table(rows), official, out_of_scope_intent="oos")


def test_official_out_of_scope_rows_need_none_in_train():
    names = ["train", "validation", "test"]
    rows = [(*row, names[i % 3]) for i, row in enumerate(PLAIN)]
    oos = [(*row, "validation" if i % 2 else "test") for i, row in enumerate(OUT_OF_SCOPE)]
    prepared = run(table([*rows, *oos]), out_of_scope_intent="oos", train_on_out_of_scope=False)
    assert prepared.metrics["rows"]["train"] == 16


def test_an_out_of_scope_intent_that_the_data_lacks_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"prepare.out_of_scope_intent: the data has no intent 'oos'; it has: close"):
        run(table(PLAIN), out_of_scope_intent="oos")
