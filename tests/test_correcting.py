import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intents.correcting import edit_table


def edit(path, content, changed, added=(), encoding="utf-8"):
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    edit_table(path, "intent", changed, added, encoding)
    return path.read_bytes()


def test_only_the_corrected_cells_of_a_csv_change(tmp_path):
    before = (
        'id,text,"intent",note\r\n'
        '"1","open ""it"", please","open",x\r\n'
        "\r\n"
        '2,"two\nlines",open,\n'
        '3,plain,shut,"needlessly quoted"\n'
        "4,last,shut,no line end"
    )
    after = edit(tmp_path / "a.csv", before, {2: "shut", 4: "open, wide", 6: "open"}).decode()
    expected = before.replace('please","open"', 'please","shut"').replace('lines",open,', 'lines","open, wide",')
    assert after == expected.replace("last,shut", "last,open")


def test_a_first_or_an_empty_cell_beside_it_is_no_obstacle(tmp_path):
    after = edit(tmp_path / "a.csv", "intent,kind,text\nopen,,a\nopen,,b\n", {3: "shut"})
    assert after == b"intent,kind,text\nopen,,a\nshut,,b\n"


def test_tsv_byte_order_mark_and_undecodable_bytes_are_kept(tmp_path):
    before = b"\xef\xbb\xbftext\tintent\n\xff broken\topen\nb, c\topen\n"
    assert edit(tmp_path / "a.tsv", before, {3: "shut"}) == before.replace(b"c\topen", b"c\tshut")


def test_rows_are_appended_in_the_columns_and_line_ends_of_the_file(tmp_path):
    added = [{"text": "a, b", "intent": "open"}]
    after = edit(tmp_path / "a.csv", "kind,text,intent\r\nplain,x,open", {}, added)
    assert after == b'kind,text,intent\r\nplain,x,open\r\n,"a, b",open\r\n'


def test_a_line_of_jsonl_keeps_its_keys_and_style(tmp_path):
    before = '{"intent":"open","text":"öffne","n":[1,2]}\r\n\n{"text": "\\u00f6", "intent": "open"}\r\n'
    added = [{"text": "neu", "intent": "shut"}]
    after = edit(tmp_path / "a.jsonl", before, {1: "shut", 3: "shut"}, added).decode()
    assert after == before.replace("open", "shut") + '{"text": "neu", "intent": "shut"}\r\n'
    assert edit(tmp_path / "b.jsonl", '{"intent": "a"}', {}, added).decode().splitlines()[1] == json.dumps(added[0])


def test_parquet_keeps_columns_types_metadata_and_compression(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {
        "id": pa.array([1, 2], pa.int16()),
        "intent": pa.array(["open", "shut"]).dictionary_encode(),
        "text": pa.array(["a", "b"], pa.large_string()),
    }
    before = pa.table(columns).replace_schema_metadata({"author": "x"})
    pq.write_table(before, path, compression="gzip")
    edit_table(path, "intent", {2: "ajar"}, [{"text": "c", "intent": "open"}])
    after = pq.read_table(path)
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.to_pydict() == {"id": [1, 2, None], "intent": ["open", "ajar", "open"], "text": ["a", "b", "c"]}
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "GZIP"


def test_a_file_that_is_no_csv_is_refused_and_stays(tmp_path):
    with pytest.raises(ValueError, match="a.csv is not valid CSV .*mend it first"):
        edit(tmp_path / "a.csv", 'text,intent\na,open\n"b,open\n', {2: "shut"})
    assert (tmp_path / "a.csv").read_text() == 'text,intent\na,open\n"b,open\n'


def test_what_the_encoding_cannot_hold_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "a.csv"
    with pytest.raises(ValueError, match=r"a.csv: '€' cannot be written in latin-1 \(prepare.encoding\)"):
        edit(path, "text,intent\nä,open\n", {2: "€"}, encoding="latin-1")
    assert path.read_bytes() == "text,intent\nä,open\n".encode("latin-1")


def test_a_line_of_jsonl_keeps_its_other_values_as_they_are_written(tmp_path):
    before = '{"n": 1e5 , "x":0.1000000000000000055511, "intent" : "open", "nested": {"intent": "open"}, "text":"a}"}\n'
    after = edit(tmp_path / "a.jsonl", before, {1: 'sh"ut'}).decode()
    assert after == before.replace('"intent" : "open"', '"intent" : "sh\\"ut"')


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_private_file_stays_private_and_a_link_stays_a_link(tmp_path, suffix):
    path, link = tmp_path / f"a.{suffix}", tmp_path / f"link.{suffix}"
    if suffix == "csv":
        path.write_text("text,intent\na,open\n")
    else:
        pq.write_table(pa.table({"text": ["a"], "intent": ["open"]}), path)
    path.chmod(0o600)
    link.symlink_to(path.name)
    edit_table(link, "intent", {2 if suffix == "csv" else 1: "shut"}, [])
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    assert b"shut" in path.read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_link_into_the_cache_becomes_a_file_and_the_cache_stays(tmp_path, suffix):
    cached, link = tmp_path / "0123", tmp_path / f"a.{suffix}"
    if suffix == "csv":
        cached.write_text("text,intent\na,open\n")
    else:
        pq.write_table(pa.table({"text": ["a"], "intent": ["open"]}), cached)
    before = cached.read_bytes()
    cached.chmod(0o444)
    link.symlink_to(cached)
    edit_table(link, "intent", {2 if suffix == "csv" else 1: "shut"}, [])
    assert cached.read_bytes() == before and cached.stat().st_mode & 0o777 == 0o444
    assert not link.is_symlink() and link.stat().st_mode & 0o777 == 0o644 and b"shut" in link.read_bytes()


def test_a_byte_order_mark_is_neither_lost_nor_added(tmp_path):
    for mark in ("", "\ufeff"):
        before = (mark + "text,intent\na,open\n").encode()
        after = edit(tmp_path / "a.csv", before, {2: "shut"}, encoding="utf-8-sig")
        assert after.decode("utf-8") == mark + "text,intent\na,shut\n"


def test_a_column_that_must_have_values_refuses_new_rows(tmp_path):
    path = tmp_path / "a.parquet"
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("text", pa.string()), ("intent", pa.string())])
    pq.write_table(pa.table({"id": [1], "text": ["a"], "intent": ["open"]}, schema=schema), path)
    with pytest.raises(ValueError, match="a.parquet: its column 'id' must have a value in each row"):
        edit_table(path, "intent", {}, [{"text": "b", "intent": "open"}])
    assert pq.read_table(path).num_rows == 1


def test_intents_that_are_numbers_stay_numbers(tmp_path):
    added = [{"text": "c", "intent": "7"}]
    after = edit(tmp_path / "a.jsonl", '{"text": "a", "intent": 0}\n{"text": "b", "intent": 1}\n', {1: "1"}, added)
    assert after.decode() == '{"text": "a", "intent": 1}\n{"text": "b", "intent": 1}\n{"text": "c", "intent": 7}\n'
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "intent": [0, 1]}), path)
    edit_table(path, "intent", {1: "1"}, added, "utf-8")
    assert pq.read_table(path).column("intent").to_pylist() == [1, 1, 7]
    with pytest.raises(ValueError, match="a.parquet: its intents are int64, so that they can become no words"):
        edit_table(path, "intent", {1: "shut"}, (), "utf-8")
