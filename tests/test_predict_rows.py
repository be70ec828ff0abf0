"""Rows that cannot be answered, and columns that the answers stand beside."""

import csv
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intents.bulk.reading import Source, open_table
from intents.cells import plain_values
from tests.predict_fixtures import (
    answer,
    classifier,  # noqa: F401
    command,
    exported,  # noqa: F401
    read_jsonl,
    write_jsonl,
)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_bad_csv_rows_are_answered_in_their_place_with_a_reason(exported, tmp_path):  # noqa: F811
    lines = [
        b"id,text",
        b"1,open the window",
        b"2,",
        b"3,caf\xe9 please",
        b"4,one,field too many",
        b"",
        b"6,\"quoted \"\"window\"\"\nin two lines\"",
        b"7,\"never closed",
        b"8,close the window",
        b"9,   ",
        b"10",
        b"11,turn on the light",
        b"12,\0\0",
    ]  # fmt: skip
    (tmp_path / "in.csv").write_bytes(b"\r\n".join(lines) + b"\r\n")
    done = command(tmp_path / "in.csv", tmp_path / "out.csv", "--model", exported, "--variant", "fp32")
    assert done.returncode == 0, done.stderr
    answers = read_csv(tmp_path / "out.csv")
    reasons = [row["reason"] for row in answers]
    assert answers[3]["text"] == "one,field too many"
    assert [row["id"] for row in answers] == ["1", "2", "3", "4", "", "6", "7", "8", "9", "10", "11", "12"]
    assert reasons == [
        "",
        "empty text",
        "undecodable: not valid utf-8",
        "3 fields where the header has 2",
        "empty line",
        "",
        "not valid CSV: unexpected end of data",
        "",
        "empty text",
        "1 fields where the header has 2",
        "",
        "empty text",
    ]
    assert [bool(row["intent"]) for row in answers] == [not reason for reason in reasons]
    assert [bool(row["confidence"]) for row in answers] == [not reason for reason in reasons]
    assert b"12 rows, 8 of them bad" in done.stderr


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_row_whose_other_columns_cannot_be_decoded_says_so(classifier, tmp_path, suffix):  # noqa: F811
    content = {
        "csv": "text,note\non,café\noff,naïve\n",
        "jsonl": '{"text": "on", "note": ["café"]}\n{"text": "off", "note": {"naïve": 1}}\n',
    }[suffix]
    source, target = tmp_path / f"in.{suffix}", tmp_path / "out.jsonl"
    source.write_bytes(content.encode("latin-1"))
    answer(source, target, "--model", classifier)
    rows = read_jsonl(target)
    assert [row["reason"] for row in rows] == ["undecodable: column 'note' is not valid utf-8"] * 2
    assert [row["intent"] for row in rows] == ["", ""]
    answer(source, target, "--model", classifier, "--encoding", "latin-1")
    rows = read_jsonl(target)
    assert [row["reason"] for row in rows] == ["", ""]
    assert rows[0]["note"] == ("café" if suffix == "csv" else ["café"])


def test_a_quote_at_the_start_of_a_tsv_field_costs_no_other_row(classifier, tmp_path):  # noqa: F811
    lines = ['"half a window\t1', "start the wipers\t2", 'open it 5"\t3', '"in\ntwo lines"\t4', "roll it down\t5"]
    (tmp_path / "in.tsv").write_text("\n".join(["text\tn", *lines]))
    answer(tmp_path / "in.tsv", tmp_path / "out.jsonl", "--model", classifier)
    answers = read_jsonl(tmp_path / "out.jsonl")
    assert [row.get("n") for row in answers] == [None, "2", "3", "4", "5"]
    assert [row["reason"] for row in answers] == ["not valid CSV: a quote is left open", "", "", "", ""]
    assert answers[0]["text"] == "half a window\t1\n"


def test_bad_json_rows_are_answered_in_their_place_with_a_reason(classifier, tmp_path):  # noqa: F811
    lines = [
        b'{"text": "open it", "deep": {"a": [1, null]}}',
        b'{"text": null}',
        b'{"text": 5}',
        b"[1]",
        b"{broken",
        b"",
        b'{"other": 1}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"text": "' + b"window " * 10_000 + b'"}',
        b'{"text": "close it"}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    answer(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", classifier)
    answers = read_jsonl(tmp_path / "out.jsonl")
    assert answers[0]["deep"] == {"a": [1, None]}
    assert [row["reason"].split(":")[0] for row in answers] == [
        "",
        "no text",
        "not text",
        "not a JSON object",
        "not valid JSON",
        "empty line",
        "no text",
        "undecodable",
        "undecodable",
        "not valid JSON",
        "",
        "",
    ]
    assert all((row["intent"] == "") == (row["confidence"] is None) == bool(row["reason"]) for row in answers)


def test_parquet_keeps_the_types_of_other_columns_and_answers_bad_cells(classifier, tmp_path):  # noqa: F811
    text = pa.array([b"open it", None, b"\xff\xfe", b" "], pa.binary()).view(pa.string())
    table = pa.table({"day": [date(2024, 1, 2)] * 4, "text": text, "tags": [["a"], [], None, ["b", "c"]]})
    pq.write_table(table, tmp_path / "in.parquet")
    answer(tmp_path / "in.parquet", tmp_path / "out.parquet", "--model", classifier)
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.schema.field("day").type == pa.date32()
    assert written.column("tags").to_pylist() == table.column("tags").to_pylist()
    assert written.column("reason").to_pylist() == ["", "no text", "undecodable: not valid utf-8", "empty text"]
    answer(tmp_path / "in.parquet", tmp_path / "out.csv", "--model", classifier)
    assert read_csv(tmp_path / "out.csv")[0]["day"] == "2024-01-02"
    assert read_csv(tmp_path / "out.csv")[3]["tags"] == '["b", "c"]'
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    answer(tmp_path / "numbers.parquet", tmp_path / "numbers.csv", "--model", classifier)
    assert [row["reason"] for row in read_csv(tmp_path / "numbers.csv")] == ["not text: int 1", "not text: int 2"]


def test_parquet_cells_that_python_lacks_are_written_as_strings_or_fail_their_part_alone(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in").mkdir()
    texts, far = pa.array(["on", "off"]), pa.array([10**7, 0], pa.int32()).view(pa.date32())
    later = pa.array([2**60, 0], pa.int64()).view(pa.timestamp("us"))
    items = pa.array([b"\xff", b"a"], pa.binary()).view(pa.string())
    nested = pa.ListArray.from_arrays([0, 1, 2], items)
    pq.write_table(pa.table({"text": texts, "far": far, "later": later}), tmp_path / "in/a.parquet")
    pq.write_table(pa.table({"text": texts, "nested": nested}), tmp_path / "in/b.parquet")
    pq.write_table(pa.table({"text": far}), tmp_path / "in/c.parquet")
    with pytest.raises(ValueError, match="2 of 3 parts failed") as caught:
        answer(tmp_path / "in", tmp_path / "out", "--model", classifier, "--output-format", "jsonl")
    assert "b.jsonl: the cells of column 'nested' (list<" in str(caught.value)
    assert "c.parquet: column 'text' (date32[day]) holds no texts" in str(caught.value)
    rows = read_jsonl(tmp_path / "out/a.jsonl")
    assert [row["far"] for row in rows] == ["29349-01-26", "1970-01-01"]
    assert all(row["intent"] for row in rows)


def test_a_window_ends_early_where_rows_are_large(tmp_path):
    long = "x" * 200_000
    table = pa.table({"text": ["on"] * 600, "audio": [f"{i}{long}" for i in range(600)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=50)
    lines = [{"text": "on", "words": [[long], {"a": long}]} for _ in range(300)]
    for path in (tmp_path / "in.parquet", write_jsonl(tmp_path / "in.jsonl", lines)):
        with open_table(Source(str(path), path.suffix[1:])) as opened:
            sizes = [len(window) for window in opened.windows]
        assert sum(sizes) == len(lines) * (2 if path.suffix == ".parquet" else 1)
        assert max(sizes) < 200, path


@pytest.mark.parametrize("uneven", ["few cells that are large", "one cell in many places", "categories"])
def test_windows_are_bounded_whatever_parquet_says_of_their_size(tmp_path, uneven):
    long = ["a" * 150_000, "b" * 150_000]
    if uneven == "few cells that are large":
        cells = pa.array([""] * 100_000 + [long[i % 2] for i in range(500)])
    else:
        cells = pa.array([long[i % 2] for i in range(2_000)])
    if uneven == "categories":
        cells = cells.dictionary_encode()
    pq.write_table(pa.table({"text": ["on"] * len(cells), "note": cells}), tmp_path / "in.parquet")
    seen = 0
    with open_table(Source(str(tmp_path / "in.parquet"), "parquet")) as opened:
        for window in opened.windows:
            notes = window.batch(opened.schema).column("note").to_pylist()
            assert sum(map(len, notes)) < 1 << 26
            assert notes == cells[seen : seen + len(notes)].to_pylist()
            seen += len(notes)
    assert seen == len(cells)


def test_times_in_a_zone_that_nobody_knows_fail_their_part_alone(classifier, tmp_path):  # noqa: F811
    times = pa.array([0, None], pa.timestamp("s", tz="Foo/Bar"))
    write_jsonl(tmp_path / "in/b.jsonl", [{"text": "on"}])
    pq.write_table(pa.table({"text": ["open the window", "on"], "at": times}), tmp_path / "in/a.parquet")
    with pytest.raises(ValueError, match=r"(?s)1 of 2 parts failed.*a\.jsonl: .*Foo/Bar"):
        answer(tmp_path / "in", tmp_path / "out", "--model", classifier, "--output-format", "jsonl")
    assert len(read_jsonl(tmp_path / "out/b.jsonl")) == 1


def test_times_in_a_zone_that_python_lacks_are_written_as_strings(classifier, tmp_path, monkeypatch):  # noqa: F811
    def plain(column):  # as Python without its own table of zones; Arrow brings one
        if pa.types.is_timestamp(column.type):
            raise KeyError("No time zone found with key Europe/Berlin")
        return plain_values(column)

    monkeypatch.setattr("intents.bulk.rows.plain_values", plain)
    times = pa.array([0, None], pa.timestamp("ms", tz="Europe/Berlin"))
    pq.write_table(pa.table({"text": ["open the window", "on"], "at": times}), tmp_path / "in.parquet")
    answer(tmp_path / "in.parquet", tmp_path / "out.csv", "--model", classifier)
    assert [row["at"] for row in read_csv(tmp_path / "out.csv")] == ["1970-01-01 01:00:00.000+0100", ""]


def test_json_objects_with_different_keys_become_one_table(classifier, tmp_path):  # noqa: F811
    rows = [{"text": "open it", "n": 1}, {"text": "it", "n": 1.5, "late": True}, {"text": "on", "mixed": [1]}]
    write_jsonl(tmp_path / "in.jsonl", rows)
    answer(tmp_path / "in.jsonl", tmp_path / "out.parquet", "--model", classifier)
    written = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert written["n"] == [1.0, 1.5, None]
    assert written["late"] == [None, True, None]
    assert written["mixed"] == [None, None, "[1]"]


def test_a_carriage_return_in_a_text_tears_no_row_and_nan_is_valid_json(classifier, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in.jsonl", [{"text": "wipers\ron", "n": float("nan")}, {"text": "off", "n": 1.0}])
    answer(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", classifier)
    assert '"n": "nan"' in (tmp_path / "out.jsonl").read_text()
    (tmp_path / "in.csv").write_text('text\n"wipers\ron"\noff\n', newline="")
    answer(tmp_path / "in.csv", tmp_path / "out.csv", "--model", classifier)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == ["wipers\ron", "off"]


def test_a_json_list_is_no_table_of_lines(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in.jsonl").write_text('[\n{"text": "on"}\n]\n'.replace("\n", ""))
    with pytest.raises(ValueError, match=r"first 1 line\(s\) hold no JSON object \(not a JSON object: list\)"):
        answer(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", classifier)
