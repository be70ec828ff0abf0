import csv
from pathlib import Path

import pytest

from intents.merging import apply_merge, plan_merge
from intents.records import Columns
from intents.review_files import ReviewRow, locate_rows, read_review, read_unlabelled, write_review
from intents.rows import read_rows

REVIEW = Path("review.csv")


@pytest.fixture
def tables(write_csv):
    train = write_csv("train.csv", ["text", "intent"], [["roll it down", "open"], ["shut it", "open"]])
    test = write_csv("test.csv", ["text", "intent"], [["close it", "shut"]])
    return [read_rows(path, Columns()) for path in (train, test)]


def review_row(table, row=3, text="shut it", intent="open", corrected="shut", reason="mislabelled"):
    return ReviewRow(table.path.as_posix(), row, text, intent, corrected, "shut", 0.9, reason, "")


def unlabelled(text, corrected):
    return ReviewRow("calls.csv", 7, text, "", corrected, "shut", 0.5, "unlabelled", "")


def merge(tables, rows, **options):
    plan = plan_merge(REVIEW, rows, tables, **options)
    apply_merge(plan, tables, Columns(), "utf-8")
    return plan


def test_corrections_go_into_their_files_and_new_rows_to_the_end_of_the_first(tables):
    rows = [
        review_row(tables[0]),
        review_row(tables[0], 2, "roll it down", corrected=""),
        review_row(tables[1], 2, "close it", "shut", "open"),
        unlabelled("ajar, please", "open"),
        unlabelled("skipped", ""),
    ]
    plan = merge(tables, rows)
    train, test = (table.path.read_bytes().decode() for table in tables)
    assert train == 'text,intent\r\nroll it down,open\r\nshut it,shut\r\n"ajar, please",open\r\n'
    assert test == "text,intent\r\nclose it,open\r\n"
    assert plan.changed[tables[0].path.as_posix()] == {3: ("open", "shut")}


def test_merging_twice_changes_nothing_the_second_time(tables):
    rows = [review_row(tables[0]), unlabelled("ajar", "open")]
    merge(tables, rows)
    again = [read_rows(table.path, Columns()) for table in tables]
    before = tables[0].path.read_bytes()
    plan = merge(again, rows)
    assert not plan
    assert plan.num_done == 2
    assert tables[0].path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"text": "shut them"},
            "row 3 should be 'shut them', but there stands 'shut it'; run python -m apps.review anew",
        ),
        ({"row": 40}, "row 40 should be 'shut it', but there is no such row"),
        ({"intent": "ajar"}, "row 3 was ajar when it was reviewed and is open now"),
        ({"corrected": "shutt"}, "review.csv, row 3: unknown corrected_intent 'shutt'; the data has: open, shut"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tables, changes, message):
    before = tables[0].path.read_bytes()
    rows = [review_row(tables[0], 2, "roll it down"), review_row(tables[0], **changes)]
    with pytest.raises(ValueError) as caught:
        merge(tables, rows)
    assert str(caught.value).startswith("1 correction(s) do not fit; no file was changed")
    assert message in str(caught.value)
    assert tables[0].path.read_bytes() == before


def test_contradicting_answers_are_refused(tables):
    rows = [review_row(tables[0]), review_row(tables[0], corrected="ajar"), unlabelled("Close it!", "open")]
    with pytest.raises(ValueError, match=r"(?s)corrected to shut above, and to ajar here.*'Close it!' is shut already"):
        merge(tables, rows, new_intents=True)


def test_a_correction_holds_for_all_rows_with_the_same_text_and_intent(write_csv):
    rows = [["shut it", "open"], ["ajar", "open"], ["Shut it!", "open"], ["shut it", "shut"]]
    path = write_csv("all.csv", ["text", "intent"], rows)
    table = read_rows(path, Columns())
    assert merge([table], [review_row(table, 2)]).changed[path.as_posix()].keys() == {2, 4}
    assert path.read_bytes() == b"text,intent\r\nshut it,shut\r\najar,open\r\nShut it!,shut\r\nshut it,shut\r\n"
    two = [review_row(table, 2), review_row(table, 4, "Shut it!", corrected="ajar")]
    for asked in (two, two[::-1]):
        with pytest.raises(ValueError, match=r"all.csv, row [24] .*corrected to \w+"):
            merge([table], asked, new_intents=True)


def test_a_correction_reaches_the_same_text_elsewhere_though_its_own_row_is_mended_already(write_csv):
    paths = [
        write_csv(name, ["text", "intent"], [["shut it", "open"], ["close it", "shut"]]) for name in ("a.csv", "b.csv")
    ]
    table, _ = tables = [read_rows(path, Columns()) for path in paths]
    row = review_row(table, 2)
    paths[0].write_text(paths[0].read_text().replace("open", "shut"))
    tables = [read_rows(path, Columns()) for path in paths]
    plan = merge(tables, [row, review_row(table, 3, "close it", "shut", "shut")])  # the second confirms a label
    assert plan.changed == {paths[1].as_posix(): {2: ("open", "shut")}} and plan.num_done == 1
    assert "open" not in paths[1].read_text()


def test_an_unlabelled_text_must_stand_in_its_file_as_it_was_listed(tables):
    path, added = Path("train.csv"), unlabelled("Ã¶ffnen", "open")
    rows = [ReviewRow(tables[0].path.as_posix(), 3, "Ã¶ffnen", "", "open", "open", 0.5, "unlabelled", "")]
    with pytest.raises(ValueError, match=rf"{path}, row 3 should be 'Ã¶ffnen', but there stands 'öffnen'; run"):
        merge(tables, rows, read_texts=lambda _: {2: "schließen", 3: "öffnen"})
    with pytest.raises(ValueError, match=rf"{path}, row 3 should be 'Ã¶ffnen', but there is no such row; run"):
        merge(tables, rows, read_texts=lambda _: {2: "schließen"})
    assert list(merge(tables, [added], read_texts=lambda _: {}).added) == ["Ã¶ffnen"]  # its file is gone


def test_a_new_intent_needs_permission(tables):
    merge(tables, [review_row(tables[0], corrected="ajar")], new_intents=True)
    assert b"shut it,ajar" in tables[0].path.read_bytes()


def test_a_row_appended_to_a_file_with_splits_is_a_training_row(write_csv):
    path = write_csv("all.csv", ["split", "text", "intent"], [["test", "shut it", "shut"]])
    merge([read_rows(path, Columns())], [unlabelled("close it", "shut")])
    assert path.read_text().splitlines()[-1] == "train,close it,shut"


@pytest.mark.parametrize("mangle", [lambda s: s[1:], lambda s: s.replace(",", ";").replace("\n", "\r\n")])
def test_a_review_survives_the_disk_and_a_spreadsheet(tmp_path, tables, mangle):
    path = tmp_path / "review.csv"
    long = "ä" * 200_000
    write_review(path, [review_row(tables[0], text=long)])
    content = path.read_text(encoding="utf-8")
    assert content.startswith("\ufefffile,row,")  # without the mark a spreadsheet takes it for another encoding
    path.write_text(mangle(content), encoding="utf-8", newline="")
    (row,) = read_review(path)
    assert (row.row, row.text, row.corrected_intent, row.reason) == (3, long, "shut", "mislabelled")


@pytest.mark.parametrize("text", ["=HYPERLINK(A1)", "- turn it on", "+1", "@home", "'twas cold", "'=1", "plain"])
def test_no_text_is_a_formula_and_each_comes_back_as_it_was(tmp_path, tables, text):
    path = tmp_path / "review.csv"
    write_review(path, [review_row(tables[0], text=text)])
    with path.open(encoding="utf-8-sig", newline="") as file:
        (cells,) = csv.DictReader(file)
    assert cells["text"][0] not in "=+-@"
    (row,) = read_review(path)
    assert row.text == text


def test_line_ends_and_empty_rows_of_a_spreadsheet_do_no_harm(tmp_path, write_csv):
    table = read_rows(
        write_csv("all.csv", ["text", "intent"], [["roll it\r\ndown", "open"], ["shut it", "shut"]]), Columns()
    )
    path = tmp_path / "review.csv"
    write_review(path, [review_row(table, 2, "roll it\r\ndown")])
    path.write_text(path.read_text() + ",,,,,,,,\n", encoding="utf-8")
    plan = merge([table], read_review(path))
    assert plan.changed[table.path.as_posix()] == {2: ("open", "shut")}


@pytest.mark.parametrize("emptied", [",,,,,,,,\n", "\n"])
def test_below_an_emptied_row_the_rows_keep_their_numbers(tmp_path, tables, emptied):
    path = tmp_path / "review.csv"
    write_review(path, [review_row(tables[0], 2, "roll it down"), review_row(tables[0], corrected="nonsense")])
    header, _, last = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    path.write_text(header + emptied + last, encoding="utf-8")
    with pytest.raises(ValueError, match="review.csv, row 3: unknown corrected_intent 'nonsense'"):
        plan_merge(path, read_review(path), tables)


def test_a_file_that_is_no_review_is_refused(tables):
    with pytest.raises(
        ValueError, match="train.csv was not written by apps.review: it has no column file, row, corrected"
    ):
        read_review(tables[0].path)


def test_rows_are_located_in_the_file_that_holds_them(tables):
    located = locate_rows(["close it", "shut it"], ["shut", "open"], [2, 3], [tables[1], tables[0]])
    assert [Path(row.file).name for row in located] == ["test.csv", "train.csv"]
    with pytest.raises(ValueError, match=r"has no row 3 with the text 'shut it' .*run `dvc repro prepare`"):
        locate_rows(["shut it"], ["open"], [3], [tables[1]])


def test_unlabelled_texts_keep_their_row_numbers(write_csv):
    path = write_csv("calls.csv", ["id", "body"], [["1", "shut it"], ["2", " "], ["3", "close it"]])
    rows, left_out = read_unlabelled(path, "body", "utf-8")
    assert [(row.row, row.text, row.intent) for row in rows] == [(2, "shut it", ""), (4, "close it", "")]
    assert left_out == {"empty text": 1}
    with pytest.raises(ValueError, match=r"notes.md: unknown suffix '.md'; valid: .csv"):
        read_unlabelled(Path("notes.md"), "body", "utf-8")


def test_a_quote_left_open_loses_no_correction_in_silence(tmp_path, tables):
    path = tmp_path / "review.csv"
    write_review(path, [review_row(tables[0], 2, "roll it down"), review_row(tables[0])])
    header, first, second = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    path.write_text(header + first.rstrip("\n") + '"open\n' + second, encoding="utf-8")
    with pytest.raises(ValueError, match=r"review.csv, line \d: not valid CSV .*is a quote left open"):
        read_review(path)
