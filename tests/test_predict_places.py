"""Files, folders, globs and pipes: what is read, what is written, what a run that ends early leaves."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps import predict
from intents.bulk.answering import answer_table
from intents.bulk.places import atomic_output
from tests.predict_fixtures import (
    REPOSITORY,
    answer,
    classifier,  # noqa: F401
    command,
    exported,  # noqa: F401
    make_classifier,
    read_jsonl,
    texts_of,
    write_jsonl,
)


def test_a_folder_is_resumed_by_part_and_answered_anew_where_input_or_model_changed(exported, tmp_path):  # noqa: F811
    model = ("--model", exported, "--variant", "fp32")
    for number in range(3):
        write_jsonl(tmp_path / f"in/day={number}/part.jsonl", [{"text": text} for text in texts_of(20)])
    (tmp_path / "in/_SUCCESS").touch()
    (tmp_path / "in/day=1/part.jsonl").rename(tmp_path / "in/day=1/part.parquet")  # not Parquet: this part fails
    with pytest.raises(ValueError, match=r"1 of 3 parts failed.*\n.*day=1/part.parquet: .*not a readable Parquet file"):
        answer(tmp_path / "in", tmp_path / "out", *model)
    paths = [tmp_path / f"out/day={number}/part.jsonl" for number in range(3)]
    assert [path.exists() for path in paths] == [True, False, True]
    (tmp_path / "in/day=1/part.parquet").rename(tmp_path / "in/day=1/part.jsonl")
    first = paths[0].stat().st_ino

    done = command(tmp_path / "in", tmp_path / "out", *model)
    assert b"60 rows; 40 were answered by an earlier run" in done.stderr
    assert [len(read_jsonl(path)) for path in paths] == [20, 20, 20]
    assert paths[0].stat().st_ino == first

    write_jsonl(tmp_path / "in/day=0/part.jsonl", [{"text": "changed"}])
    answer(tmp_path / "in", tmp_path / "out", *model)
    assert len(read_jsonl(paths[0])) == 1
    untouched = paths[2].read_text()
    answer(tmp_path / "in", tmp_path / "out", "--model", make_classifier(tmp_path / "other", seed=5))
    assert paths[2].read_text() != untouched


def test_a_part_is_answered_anew_when_its_output_its_format_or_what_is_known_of_it_changed(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("text,n\ttext\non,1\t2\n")
    command_line = (tmp_path / "in", tmp_path / "out", "--model", classifier, "--input-format")
    answer(*command_line, "csv")
    target, state = tmp_path / "out/a", tmp_path / "out/.predict/a.json"
    for spoiled, content in ((target, ""), (state, "[]"), (state, "{}")):
        spoiled.write_text(content)
        answer(*command_line, "csv")
        assert target.read_text().startswith("text,n\ttext,intent,")
        assert "made_from" in json.loads(state.read_text())
    answer(*command_line, "tsv")
    assert target.read_text().startswith("text,n\ttext\tintent\t")


@pytest.mark.parametrize("target_format", ["csv", "parquet"])
def test_an_empty_part_gives_an_empty_part(classifier, tmp_path, target_format):  # noqa: F811
    write_jsonl(tmp_path / "in/a.jsonl", [])
    write_jsonl(tmp_path / "in/b.jsonl", [{"text": "on"}])
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier, "--output-format", target_format)
    paths = [tmp_path / f"out/{name}.{target_format}" for name in "ab"]
    if target_format == "parquet":
        assert [pq.read_metadata(path).num_rows for path in paths] == [0, 1]
    else:
        assert [len(path.read_text().splitlines()) for path in paths] == [1, 2]


def test_a_part_that_grew_while_it_was_answered_is_answered_anew(classifier, tmp_path, monkeypatch):  # noqa: F811
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "on"}])

    def answer_and_grow(*arguments):
        counts = answer_table(*arguments)
        with (tmp_path / "in/a.jsonl").open("a") as file:
            file.write('{"text": "off"}\n')
        return counts

    monkeypatch.setattr("apps.predict.answer_table", answer_and_grow)
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    monkeypatch.undo()
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert [row["text"] for row in read_jsonl(tmp_path / "out/a.jsonl")] == ["on", "off"]


def test_files_of_a_folder_that_are_no_tables_are_named(classifier, tmp_path, capsys):  # noqa: F811
    for name in ("a.csv", "_b.csv", "c.txt", "part-0000"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("text\non\n")
    for name in ("_SUCCESS", ".hidden.csv"):
        (tmp_path / "in" / name).touch()
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert "left out, no tables: _b.csv, c.txt, part-0000\n" in capsys.readouterr().err
    (tmp_path / "in/c.txt").unlink()
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier, "--input-format", "csv")
    assert (tmp_path / "out/part-0000").read_text().splitlines()[0] == "text,intent,confidence,reason"


def test_linked_folders_are_read_and_pipes_in_a_folder_named(classifier, tmp_path, capsys):  # noqa: F811
    write_jsonl(tmp_path / "elsewhere/b.jsonl", [{"text": "off"}])
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "on"}])
    (tmp_path / "in/sub").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to("../in")
    os.mkfifo(tmp_path / "in/pipe.jsonl")
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert read_jsonl(tmp_path / "out/sub/b.jsonl")[0]["text"] == "off"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.jsonl")) == ["a.jsonl", "b.jsonl"]
    assert "left out, no tables: pipe.jsonl\n" in capsys.readouterr().err


def test_a_dangling_link_is_a_part_that_fails(classifier, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "on"}])
    (tmp_path / "in/b.jsonl").symlink_to("nowhere.jsonl")
    with pytest.raises(ValueError, match=r"1 of 2 parts failed.*\n  b.jsonl: .*No such file"):
        answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert len(read_jsonl(tmp_path / "out/a.jsonl")) == 1


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zip"])
@pytest.mark.parametrize("damage", ["cut short", "not compressed"])
def test_a_damaged_part_is_named_and_leaves_the_others_alone(classifier, tmp_path, suffix, damage):  # noqa: F811
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "on"}])
    content = "text\n" + "\n".join(map(str, np.random.default_rng(0).random(2000)))
    with fsspec.open(str(tmp_path / f"in/b.csv.{suffix}"), "wt", compression="infer") as file:
        file.write(content)
    path = tmp_path / f"in/b.csv.{suffix}"
    path.write_bytes(path.read_bytes()[:5000] if damage == "cut short" else content.encode())
    with pytest.raises(ValueError, match=rf"1 of 2 parts failed.*\n  b.csv.{suffix}: .*(is damaged|to its end): "):
        answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".predict", "a.jsonl"]


def test_an_archive_with_a_password_is_named_and_leaves_the_others_alone(classifier, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in/good.jsonl", [{"text": "open the window"}])
    with zipfile.ZipFile(tmp_path / "in/a.csv.zip", "w") as archive:
        archive.writestr("a.csv", "text\non\n")
    content = bytearray((tmp_path / "in/a.csv.zip").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # as if it were encrypted
        content[content.index(signature) + flags] |= 1
    (tmp_path / "in/a.csv.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 2 parts failed.*\n.*a.csv.zip cannot be unpacked: .*password"):
        answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert len(read_jsonl(tmp_path / "out/good.jsonl")) == 1


def test_two_machines_that_write_the_same_output_leave_it_whole(tmp_path, monkeypatch):
    """In containers both may be process 1."""
    target = tmp_path / "out.csv"
    with atomic_output(str(target)) as first:
        first.write(b"one, ")
        monkeypatch.setattr("socket.gethostname", lambda: "another")
        with atomic_output(str(target)) as second:
            second.write(b"two")
        assert target.read_bytes() == b"two"
        first.write(b"and all of it")
    assert target.read_bytes() == b"one, and all of it"
    assert list(tmp_path.iterdir()) == [target]


def test_an_archive_of_several_tables_is_refused(classifier, tmp_path):  # noqa: F811
    with zipfile.ZipFile(tmp_path / "in.csv.zip", "w") as archive:
        archive.writestr("a.csv", "text\non\n")
        archive.writestr("b.csv", "text\noff\n")
    with pytest.raises(ValueError, match=r"in.csv.zip holds 2 files \(a.csv, b.csv\); pack one table per archive"):
        answer(tmp_path / "in.csv.zip", tmp_path / "out.csv", "--model", classifier)


def test_a_table_without_rows_gives_one_with_the_answers_columns(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in.csv").write_text("id,text\n")
    answer(tmp_path / "in.csv", tmp_path / "out.csv", "--model", classifier)
    assert (tmp_path / "out.csv").read_text() == "id,text,intent,confidence,reason\n"
    answer(tmp_path / "in.csv", tmp_path / "out.parquet", "--model", classifier, "--probabilities")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_pipe_or_device_is_written_to_and_never_replaced(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in.csv").write_text("text\non\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        answer(tmp_path / "in.csv", pipe, "--model", classifier, "--output-format", "csv")
        assert reader.stdout.read().startswith("text,intent,confidence,reason\non,")
    assert pipe.is_fifo()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_an_interrupted_run_ends_at_once_and_leaves_nothing_half_written(exported, tmp_path, sent, code):  # noqa: F811
    (tmp_path / "in").mkdir()
    source = write_jsonl(tmp_path / "in/texts.jsonl", [{"text": text} for text in texts_of(60_000)])
    line = [sys.executable, "-m", "apps.predict", source, tmp_path / "out.jsonl", "--model", exported]
    line += ["--variant", "fp32"]

    def heed():
        """Ignore nothing: shells let what they start in the background ignore Ctrl-C, nohup a closed terminal."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    running = subprocess.Popen(line, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    while not any(path.stat().st_size for path in tmp_path.glob(".out.jsonl.*.part")):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(sent)
    _, errors = running.communicate()
    assert running.returncode == code
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_run_killed_in_the_middle_leaves_whole_parts_alone_and_goes_on_with_the_rest(exported, tmp_path):  # noqa: F811
    for number in range(12):
        write_jsonl(tmp_path / f"in/{number:02}.jsonl", [{"text": text} for text in texts_of(4000)])
    command_line = (tmp_path / "in", tmp_path / "out", "--model", exported, "--variant", "fp32")
    running = subprocess.Popen(
        [sys.executable, "-m", "apps.predict", *command_line], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    while not list((tmp_path / "out").glob("*.jsonl")):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    written = sorted((tmp_path / "out").glob("[0-9]*.jsonl"))
    assert 1 <= len(written) < 12
    assert {len(read_jsonl(path)) for path in written} == {4000}
    answer(*command_line)
    assert [len(read_jsonl(tmp_path / f"out/{number:02}.jsonl")) for number in range(12)] == [4000] * 12


def test_a_glob_keeps_relative_names_and_a_folder_can_be_converted(classifier, tmp_path):  # noqa: F811
    for name in ("a/x.jsonl", "b/x.jsonl", "b/y.csv"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text('{"text": "on"}\n' if name.endswith("jsonl") else "text\non\n")
    answer(tmp_path / "in/*/x.jsonl", tmp_path / "out", "--model", classifier, "--output-format", "parquet")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.parquet"))
    assert found == ["a/x.parquet", "b/x.parquet"]


def test_a_glob_is_answered_into_a_folder_beside_its_files_which_it_does_not_match(classifier, tmp_path):  # noqa: F811
    (tmp_path / "calls-1.csv").write_text("text\non\n")
    for _ in range(2):
        answer(tmp_path / "calls-*.csv", tmp_path / "answers", "--model", classifier)
    assert [path.name for path in tmp_path.rglob("*.csv")] == ["calls-1.csv", "calls-1.csv"]


def test_standard_input_and_output_hold_nothing_but_rows(exported):  # noqa: F811
    line = ("-", "-", "--model", exported, "--variant", "fp32", "--input-format")
    done = command(*line, "csv", "--output-format", "jsonl", input=b"text\nopen it\n\n")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["reason"] for line in done.stdout.splitlines()] == ["", "empty line"]
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["on", "off"]}), table)
    done = command(*line, "parquet", input=table.getvalue().to_pybytes())
    assert pq.read_table(pa.BufferReader(done.stdout)).column("text").to_pylist() == ["on", "off"]


@pytest.mark.parametrize(("stream", "arguments"), [("stdin", ["-", "out.csv"]), ("stdout", ["in.csv", "-"])])
def test_a_closed_stream_is_named(classifier, tmp_path, monkeypatch, stream, arguments):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("text\non\n")
    monkeypatch.setattr(sys, stream, None)
    formats = ["--input-format", "csv", "--output-format", "csv"]
    with pytest.raises(ValueError, match=f"standard {stream[3:]}put is closed; name a file instead of -"):
        answer(*arguments, "--model", classifier, *formats)


def test_a_reader_that_stops_early_ends_the_command_quietly(exported, tmp_path):  # noqa: F811
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_of(5000)])
    options = f"--model {exported} --variant fp32 --output-format jsonl"
    line = f"{sys.executable} -m apps.predict {source} - {options} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stdout.count(b"\n")) == (141, 1)  # as a shell reports of any such command
    assert b"rror" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.csv", "out.csv"], "INPUT absent.csv does not exist"),
        (["in.csv", "in.csv"], "is INPUT: choose another name"),
        (["in.csv", "out.xlsx"], "OUTPUT 'out.xlsx': unknown suffix; valid: csv, tsv, jsonl, parquet"),
        (
            ["in.csv", "out.csv", "--text-column", "words"],
            "no column 'words' (--text-column); its columns: text, intent",
        ),
        (["in.csv", "out.csv"], "the input has a column 'intent' already"),
        (["in.csv", "out.csv", "--encoding", "utf-99"], "--encoding: unknown encoding 'utf-99'"),
        (["in.csv", "out.csv", "--model", "nowhere"], "nowhere holds no classifier"),
        (["gopher://host/x.csv", "out.csv"], "Protocol not known: gopher"),
        (["folder", "out.csv"], "OUTPUT must be a folder, got 'out.csv'"),
        (["folder", "folder/answers"], "lies within INPUT"),
        (["folder", "linked"], "OUTPUT {here}/linked/in.csv is one of the inputs"),
        (["nested/in", "nested"], "OUTPUT {here}/nested/in/x.csv is one of the inputs"),
        (["links", "folder"], "OUTPUT {here}/folder/in.csv is one of the inputs"),
        (["n*/**/x.csv", "nested"], "OUTPUT {here}/nested/nested/in/in/x.csv lies within INPUT"),
        (["in.csv", "local://{here}/in.csv"], "is INPUT: choose another name"),
        (["local://{here}/in.csv", "in.csv"], "is INPUT: choose another name"),
        (["header.csv", "out.csv"], "header.csv is not utf-8; set --encoding"),
        (["key.jsonl", "out.csv"], "key.jsonl: the key '\\udce9' is not valid Unicode; rename it"),
        (["-", "out.csv"], "standard input has no suffix; give --input-format"),
        (["-", "out.csv", "--input-format", "jsonl"], "JSONL from standard input can only become JSONL"),
        (["*.nothing", "out"], "holds no table"),
        (["in.csv", "folder"], "OUTPUT folder is a folder, INPUT a single table; name a file"),
        (["folder", "in.txt"], "is 1 tables: OUTPUT must be a folder, got 'in.txt'"),
        (["in.csv", "link.csv"], "is INPUT: choose another name"),
        (["", "out.csv"], "INPUT is empty"),
        (["in.csv", ""], "OUTPUT is empty"),
        (["pipe", "out.csv", "--input-format", "csv"], "pipe is not a regular file; pipe it in, with - as INPUT"),
        (["in.csv", "in.txt/out.csv", "--prefix", "a_"], "in.txt/out.csv cannot be written: [Errno"),
        (["in.csv", "out.csv", "--encoding", "base64"], "--encoding: unknown encoding 'base64'"),
        (
            ["semicolons.csv", "out.csv"],
            "semicolons.csv has no column 'text': its fields are separated by semicolons, id;text; save it with commas",
        ),
        (["utf16.csv", "out.csv"], "utf16.csv is not utf-8; set --encoding"),
        (["empty.csv", "out.csv"], "empty.csv: the first line must name the columns (the file is empty)"),
        (["empty.parquet", "out.csv"], "empty.parquet is not a readable Parquet file"),
        (["twice.parquet", "out.csv"], "twice.parquet has two columns called 'text'; rename one"),
    ],
)
def test_mistakes_are_explained_and_leave_no_output(classifier, tmp_path, monkeypatch, arguments, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("text,intent\non,lights\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/in.csv").write_text("text\non\n")
    (tmp_path / "link.csv").symlink_to("in.csv")
    for name in ("nested/in/x.csv", "nested/in/in/x.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("text\non\n")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/in.csv").symlink_to("../folder/in.csv")
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "header.csv").write_bytes(b"gr\xf6\xdfe,text\n1,on\n")
    (tmp_path / "key.jsonl").write_text(r'{"\udce9": 1, "text": "on"}')
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "semicolons.csv").write_text("id;text\n1;on\n")
    (tmp_path / "utf16.csv").write_text("id,text\n1,on\n", encoding="utf-16")
    for name in ("in.txt", "empty.csv", "empty.parquet"):
        (tmp_path / name).touch()
    pq.write_table(pa.table([["on"], ["off"]], names=["text", "text"]), tmp_path / "twice.parquet")
    before = sorted(tmp_path.rglob("*"))
    model = [] if "--model" in arguments else ["--model", classifier]
    with pytest.raises(ValueError) as caught:
        answer(*(argument.format(here=tmp_path) for argument in arguments), *model)
    assert message.format(here=tmp_path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_without_credentials_is_named(tmp_path, monkeypatch):
    s3fs = pytest.importorskip("s3fs", reason="pip install -c constraints.txt -e '.[s3]' brings the store's client")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # holds no ~/.aws
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(sys, "argv", ["predict", "s3://calls/today.csv", str(tmp_path / "out.csv")])
    try:
        with pytest.raises(ValueError, match="^s3://calls/today.csv: Unable to locate credentials"):
            predict.main()
    finally:
        s3fs.S3FileSystem.clear_instance_cache()  # the next to ask for a store would get this one


@pytest.mark.parametrize(("source", "target"), [("one/in.csv", "two/in.csv"), ("one", "two")])
def test_two_names_of_one_file_are_not_two_files(classifier, tmp_path, monkeypatch, source, target):  # noqa: F811
    """As where a folder is mounted twice, or a file system takes upper and lower case for the same."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one/in.csv").write_text("text\non\n")
    (tmp_path / "two").symlink_to("one")
    monkeypatch.setattr("os.path.realpath", os.path.abspath)
    with pytest.raises(ValueError, match="is INPUT: choose another name|is one of the inputs"):
        answer(source, target, "--model", classifier)
    assert (tmp_path / "one/in.csv").read_text() == "text\non\n"


def test_an_output_that_was_there_survives_a_run_that_fails(classifier, tmp_path):  # noqa: F811
    content = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts_of(50_000)}), content, row_group_size=10_000)
    damaged = bytearray(content.getvalue().to_pybytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 2000] = bytes(2000)
    (tmp_path / "in.parquet").write_bytes(damaged)
    (tmp_path / "out.parquet").write_text("answers of yesterday")
    with pytest.raises(ValueError, match="is damaged after row"):
        answer(tmp_path / "in.parquet", tmp_path / "out.parquet", "--model", classifier)
    assert (tmp_path / "out.parquet").read_text() == "answers of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_an_output_that_is_replaced_stays_as_private_as_it_was(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in.csv").write_text("text\non\n")
    (tmp_path / "out.csv").touch(mode=0o600)
    answer(tmp_path / "in.csv", tmp_path / "out.csv", "--model", classifier)
    assert (tmp_path / "out.csv").read_text().startswith("text,intent")
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600


def test_remote_outputs_leave_no_file_open(classifier, tmp_path):  # noqa: F811
    for number in range(5):
        write_jsonl(tmp_path / f"in/{number}.jsonl", [{"text": "on"}])
    answer(tmp_path / "in/0.jsonl", "memory://first/0.jsonl", "--model", classifier)  # what stays open once
    before = len(os.listdir("/proc/self/fd"))
    answer(tmp_path / "in", "memory://left-open", "--model", classifier)
    assert len(fsspec.filesystem("memory").find("/left-open")) == 10
    assert len(os.listdir("/proc/self/fd")) <= before


def test_parts_are_answered_anew_when_a_setting_changed(classifier, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "on", "said": "off"}])
    line = (tmp_path / "in", tmp_path / "out", "--model", classifier, "--output-format", "csv")
    found = []
    for more in ([], ["--probabilities"], ["--prefix", "p_"], ["--text-column", "said"]):
        answer(*line, *more)
        found.append((tmp_path / "out/a.csv").read_text())
    assert len(set(found)) == 4


def test_two_colons_in_a_name_are_part_of_it(classifier, tmp_path):  # noqa: F811
    (tmp_path / "in::1.csv").write_text("text\non\n")
    (tmp_path / "out").write_text("keep me")
    answer(tmp_path / "in::1.csv", tmp_path / "out::2.csv", "--model", classifier)
    assert (tmp_path / "out").read_text() == "keep me"
    assert (tmp_path / "out::2.csv").read_text().startswith("text,intent,")
