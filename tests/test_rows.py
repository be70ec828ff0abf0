import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intents.problems import raise_problems
from intents.records import Columns
from intents.rows import read_rows


def read(path, content, encoding="utf-8", columns=None):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return read_rows(path, columns or Columns(), encoding)


def message_of(path, content, **kwargs):
    """The error that a user would see, whether raised at once or collected."""
    with pytest.raises(ValueError) as caught:
        raise_problems(read(path, content, **kwargs).problems)
    return str(caught.value)


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_reads_csv_with_kind_and_split(tmp_path):
    rows = read(tmp_path / "a.csv", "text,intent,kind,split\n open it ,open,plain,train\nshut it,shut,,test\n")
    assert (rows.texts, rows.intents) == (["open it", "shut it"], ["open", "shut"])
    assert (rows.kinds, rows.splits, rows.numbers) == (["plain", ""], ["train", "test"], [2, 3])
    assert not rows.problems


def test_reads_columns_under_other_names_in_any_order(tmp_path):
    columns = Columns("utterance", "class", None, None)
    rows = read(tmp_path / "a.csv", "class,split,utterance\nopen,nonsense,open it\n", columns=columns)
    assert (rows.texts, rows.intents, rows.splits) == (["open it"], ["open"], [""])


def test_reads_a_file_with_byte_order_mark_and_windows_line_ends(tmp_path):
    rows = read(tmp_path / "a.csv", b"\xef\xbb\xbftext,intent\r\nopen it,open\r\n")
    assert (rows.texts, rows.numbers) == (["open it"], [2])


def test_reads_tsv_whose_texts_hold_commas(tmp_path):
    rows = read(tmp_path / "a.TSV", "text\tintent\nopen, please\topen\n")
    assert rows.texts == ["open, please"]


def test_reads_jsonl_with_keys_in_any_order_and_other_keys(tmp_path):
    lines = [
        {"intent": "open", "text": "öffne es"},
        {"id": 7, "text": "shut it", "intent": "shut", "kind": None},
    ]
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    rows = read(tmp_path / "a.jsonl", "\ufeff" + content + "\n\n")
    assert (rows.texts, rows.numbers, rows.kinds) == (["öffne es", "shut it"], [1, 2], ["", ""])


def test_reads_parquet_with_strings_as_categories_and_other_columns(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        id=pa.array([1, 2]),
        intent=pa.array(["open", "shut"]).dictionary_encode(),
        text=pa.array(["öffne es", "shut it"], type=pa.large_string()),
    )
    rows = read_rows(path, Columns())
    assert (rows.texts, rows.intents, rows.numbers) == (["öffne es", "shut it"], ["open", "shut"], [1, 2])


def test_reads_latin_1_when_told(tmp_path):
    content = "text,intent\nöffne das Fenster,open\n".encode("latin-1")
    assert read(tmp_path / "a.csv", content, encoding="latin-1").texts == ["öffne das Fenster"]


def test_reads_utf_16_when_told(tmp_path):
    assert read(tmp_path / "a.csv", "text,intent\nöffne,open\n", encoding="utf-16").texts == ["öffne"]


def test_counts_rows_as_a_spreadsheet_does_despite_quoted_line_breaks_and_empty_lines(tmp_path):
    rows = read(tmp_path / "a.csv", 'text,intent\n"open\nit ""now""",open\n\nshut it,shut\n,shut\n')
    assert (rows.texts, rows.numbers) == (['open\nit "now"', "shut it"], [2, 4])
    assert [*map(str, rows.problems)] == [f"{tmp_path / 'a.csv'}, row 5: empty text"]


def test_reports_all_bad_rows_together_with_their_numbers(tmp_path):
    content = (
        b"text,intent,kind,split\n"
        b"fine,open,,train\n"
        b"\xf6ffne,open,,train\n"  # latin-1
        b"  ,open,,train\n"
        b"no intent,,,train\n"
        b"odd,open,,dev\n"
        b"one, two,open,,train\n"
    )
    message = message_of(tmp_path / "a.csv", content)
    lines = message.splitlines()
    assert lines[0] == "5 problem(s) in the data"
    assert all(f"a.csv, row {number}: " in message for number in (3, 4, 5, 6, 7))
    assert "row 3: text has bytes that are not utf-8; set prepare.encoding" in message
    assert "row 4: empty text" in message
    assert "row 5: empty intent" in message
    assert (
        "row 6: unknown split 'dev'; valid: train, validation, test; prepare.split_column=null ignores the" in message
    )
    assert "row 7: 5 fields where the header has 4; quote texts that contain ','" in message


def test_a_flood_of_problems_is_cut_with_a_count(tmp_path):
    rows = "".join(f"text,open,{number}th\n" for number in range(60))
    message = message_of(tmp_path / "a.csv", f"text,intent,split\n{rows}")
    assert message.startswith("60 problem(s)")
    assert message.endswith("... and 10 more")


def test_what_many_rows_have_is_one_line(tmp_path):
    content = "text,intent\n" + ",x\n" * 60 + "fine,\n" * 3 + "fine,open\n"
    first, *lines = message_of(tmp_path / "a.csv", content).splitlines()
    assert first == "63 problem(s) in the data"
    assert lines[0].endswith("a.csv, rows 2, 3, 4 and 57 more: empty text")
    assert [line.split("a.csv, ")[1] for line in lines[1:]] == [f"row {row}: empty intent" for row in (62, 63, 64)]


def test_an_open_quote_names_the_row_where_it_opens(tmp_path):
    message = message_of(tmp_path / "a.csv", 'text,intent\nfine,open\n"never closed,open\nfine,shut\n')
    assert "a.csv, row 3: not valid CSV" in message
    assert "is a quote left open?" in message


def test_jsonl_names_the_lines_that_are_no_objects(tmp_path):
    message = message_of(tmp_path / "a.jsonl", '{"text": "x", "intent": "a"}\n{"text": \n["x", "a"]\n')
    assert "row 2: not valid JSON" in message
    assert "row 3: must be a JSON object, found list" in message


def test_a_jsonl_file_that_is_no_json_says_so(tmp_path):
    assert "a.jsonl, row 1: not valid JSON" in message_of(tmp_path / "a.jsonl", "text,intent\nopen it,open\n")


def test_values_that_are_no_strings_are_named(tmp_path):
    message = message_of(tmp_path / "a.jsonl", '{"text": 3, "intent": "a"}\n{"intent": "a"}\n')
    assert "row 1: text must be a string, found int" in message
    assert "row 2: text must be a string, found nothing" in message
    path = write_parquet(tmp_path / "a.parquet", text=["x", None], intent=["a", "b"])
    assert [*map(str, read_rows(path, Columns()).problems)] == [f"{path}, row 2: text must be a string, found nothing"]


@pytest.mark.parametrize("kept_bytes", [0, 4, 200])
def test_corrupt_parquet_is_an_error_that_names_the_file(tmp_path, kept_bytes):
    path = write_parquet(tmp_path / "a.parquet", text=["x"] * 100, intent=["a"] * 100)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ValueError, match=r"a\.parquet is not a readable Parquet file"):
        read_rows(path, Columns())


def test_parquet_with_damaged_pages_is_an_error_that_names_the_file(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", text=[f"text {i}" for i in range(1000)], intent=["a"] * 1000)
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet is not a readable Parquet file"):
        read_rows(path, Columns())


@pytest.mark.parametrize("column, setting", [("text", "text_column"), ("intent", "intent_column")])
def test_a_missing_column_names_the_setting_and_the_columns_there_are(tmp_path, column, setting):
    header = "text,intent,kind".replace(column, "other")
    expected = rf"no column '{column}' \(prepare.{setting}\); its columns: {header.replace(',', ', ')}"
    with pytest.raises(ValueError, match=expected):
        read(tmp_path / "a.csv", header + "\na,b,c\n")


def test_rejects_an_empty_file(tmp_path):
    with pytest.raises(ValueError, match="a.csv is empty: it needs a header and rows"):
        read(tmp_path / "a.csv", "")


def test_rejects_an_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix '.xlsx'; valid: .csv, .tsv, .jsonl, .parquet"):
        read(tmp_path / "a.xlsx", "x")


def test_rejects_an_unknown_encoding(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,intent\n")
    with pytest.raises(ValueError, match="prepare.encoding: unknown encoding 'latin-77'; try utf-8"):
        read_rows(path, Columns(), "latin-77")


def test_a_file_in_another_encoding_altogether_names_the_setting(tmp_path):
    with pytest.raises(ValueError, match=r"a.csv is not utf-16 .*set prepare.encoding"):
        read(tmp_path / "a.csv", b"text,intent\nx,y\n\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"a.csv has no column 'text'.*; set prepare.encoding"):
        read(tmp_path / "a.csv", "text,intent\nx,y\n".encode("utf-16"))


def test_a_missing_file_names_the_settings(tmp_path):
    with pytest.raises(ValueError, match="nowhere.csv does not exist or is not a file; prepare.source, validation"):
        read_rows(tmp_path / "nowhere.csv", Columns())


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    message = message_of(tmp_path / "a.csv", "intent,text,intent\na,open it,b\n")
    assert "a.csv has two columns called 'intent'; rename one" in message
    arrays = [pa.array(["open it"]), pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.table(arrays, names=["text", "intent", "intent"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet has two columns called 'intent'; rename one"):
        read_rows(tmp_path / "a.parquet", Columns())


def test_a_split_column_in_other_letters_is_not_passed_over(tmp_path):
    content = "text,intent,Split\nopen it,a,test\n"
    assert "(prepare.split_column), but 'Split'; set prepare.split_column=Split" in message_of(
        tmp_path / "a.csv", content
    )
    assert len(read(tmp_path / "a.csv", content, columns=Columns(split=None))) == 1


def test_intents_may_be_numbers(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", text=["x", "y"], intent=[0, 12], kind=[3, None])
    rows = read_rows(path, Columns())
    assert (rows.intents, rows.kinds, rows.problems) == (["0", "12"], ["3", ""], [])
    assert "intent must be a string, found bool" in message_of(tmp_path / "a.jsonl", '{"text": "x", "intent": true}\n')


def test_json_that_python_cannot_hold_and_bytes_that_are_no_text_name_their_row(tmp_path):
    lines = ["[" * 100_000, f'{{"text": "x", "intent": {"9" * 5000}}}', '{"text": "x", "intent": "a"}']
    message = message_of(tmp_path / "a.jsonl", "\n".join(lines))
    assert "row 1: not valid JSON" in message and "row 2: not valid JSON" in message
    broken = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())
    path = write_parquet(tmp_path / "a.parquet", text=broken, intent=["a", "b"])
    assert [*map(str, read_rows(path, Columns()).problems)] == [f"{path}, row 2: text must be a string, found bytes"]


def test_one_fault_of_a_whole_column_is_one_line(tmp_path):
    lines = "".join(f'{{"text": {{"v": {number}}}, "intent": "a"}}\n' for number in range(120))
    message = message_of(tmp_path / "a.jsonl", lines)
    assert message.splitlines()[1:] == [
        f"  {tmp_path}/a.jsonl, rows 1, 2, 3 and 117 more: text must be a string, found dict"
    ]
    message = message_of(tmp_path / "b.jsonl", '{"text": "x", "intent": 1.0}\n')
    assert "intent must be a string, found float; save the column as text" in message


@pytest.mark.parametrize("content", ['[\n  {"text": "x", "intent": "a"}\n]\n', '[{"text": "x", "intent": "a"}]'])
def test_one_json_list_is_no_jsonl(tmp_path, content):
    assert "is one JSON list; JSONL has one object on each line" in message_of(tmp_path / "a.jsonl", content)


def test_an_empty_first_line_and_a_packed_file_are_named(tmp_path):
    assert "its first line is empty" in message_of(tmp_path / "a.csv", "\ntext,intent\nx,a\n")
    assert "unknown suffix '.gz'" in (message := message_of(tmp_path / "a.csv.gz", "text,intent\nx,a\n"))
    assert message.endswith("; unpack it first")


def test_another_separator_is_pointed_out(tmp_path):
    message = message_of(tmp_path / "a.csv", "text\tintent\nopen it\ta\n")
    assert message.endswith(" (fields are separated by commas, in .tsv files by tabs)")
    message = message_of(tmp_path / "a.csv", "text;intent\nopen it;a\n")
    assert message.endswith("a.csv: its fields are separated by semicolons, text;intent; save it with commas")


def test_an_encoding_that_is_not_for_files_names_the_setting(tmp_path):
    assert "prepare.encoding: 'idna' cannot be used" in message_of(
        tmp_path / "a.csv", b"text,intent\nopen it,a\n", encoding="idna"
    )


def test_a_stray_quote_that_takes_in_rows_of_a_tsv_is_named(tmp_path):
    content = 'text\tintent\n"no thanks\tbad\nfine\tgood\nshe wrote yes"\tgood\nlast\tgood\n'
    message = message_of(tmp_path / "a.tsv", content)
    assert "row 2: a text that begins with a quotation mark takes in 2 line(s) that look like rows" in message
    assert "1 problem(s)" in message


def test_a_stray_quote_that_takes_in_rows_of_a_csv_is_named(tmp_path):
    torn = "open quote,open\nshut it,shut\nshut, please,shut\nscreen 5"
    content = f'text,intent\nopen it,open\nshut,shut\n"{torn}",open\n'
    message = message_of(tmp_path / "a.csv", content)
    assert "a.csv, row 4: a text that begins with a quotation mark takes in 2 line(s) that look like rows;" in message


@pytest.mark.parametrize("text", ["Hello,\nopen it, please\nthanks", "No, thanks\nI am fine", "Fine\nno,thanks\nbye"])
def test_a_quoted_text_of_several_lines_is_a_text(tmp_path, text):
    rows = read(tmp_path / "a.csv", f'text,intent\n"{text}",thanks\nopen it,please\n')
    assert not rows.problems and rows.texts == [text, "open it"]


def test_of_unlabelled_parquet_the_texts_alone_are_read(tmp_path):
    beyond = pa.array([10**15], pa.timestamp("s"))
    path = write_parquet(tmp_path / "a.parquet", text=["open it"], kind=beyond)
    assert read_rows(path, Columns(), labelled=False).texts == ["open it"]
    path = write_parquet(tmp_path / "a.parquet", text=["open it"], intent=["open"], kind=beyond)
    with pytest.raises(ValueError, match="a.parquet is not a readable Parquet file: "):
        read_rows(path, Columns())


def test_unlabelled_texts_that_nobody_can_see_are_passed_over(tmp_path):
    (tmp_path / "log.csv").write_text("text\n\u200b\nopen it\n", encoding="utf-8")
    assert read_rows(tmp_path / "log.csv", Columns(), labelled=False).texts == ["open it"]


def test_a_quote_left_open_in_the_header_is_named(tmp_path):
    assert "row 1: not valid CSV" in message_of(tmp_path / "a.csv", 'text,"intent\nx,a\n')


def test_an_empty_jsonl_file_is_called_so(tmp_path):
    assert "a.jsonl is empty: it needs a JSON object on each line" in message_of(tmp_path / "a.jsonl", "\n")


def test_bytes_that_are_utf_8_are_not_read_as_another_encoding(tmp_path):
    for encoding in ("latin-1", "cp1252", "iso-8859-15"):
        (tmp_path / "a.csv").write_text("text,intent\nun café,open\n", encoding="utf-8")
        with pytest.raises(ValueError, match=f"a.csv is UTF-8 by its bytes, not {encoding}; prepare.encoding"):
            read_rows(tmp_path / "a.csv", Columns(), encoding)


def test_quotes_of_windows_are_not_read_as_control_characters(tmp_path):
    content = "text,intent\ndon’t “stop”,open\n".encode("cp1252")
    with pytest.raises(ValueError, match="read as latin-1; set prepare.encoding to .* cp1252 for Western Europe"):
        read(tmp_path / "a.csv", content, encoding="latin-1")
    assert read(tmp_path / "a.csv", content, encoding="cp1252").texts == ["don’t “stop”"]


def test_encodings_of_several_bytes_are_read_as_told(tmp_path):
    for encoding in ("gb18030", "shift_jis", "utf-16", "utf-8-sig"):
        assert read(tmp_path / "a.csv", "text,intent\n打开窗,open\n".replace("开", "閉"), encoding).texts == ["打閉窗"]


def test_jsonl_in_another_encoding_and_json_over_several_lines_are_called_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "intent": "b"}\n', encoding="utf-16")
    with pytest.raises(ValueError, match=r"a.jsonl is no text in this encoding; set prepare.encoding"):
        read_rows(tmp_path / "a.jsonl", Columns(), "latin-1")
    assert "JSONL has one object on each line" in message_of(tmp_path / "b.jsonl", '{\n"text": "a"\n}\n{\n}\n')
