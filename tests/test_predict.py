import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from intents.bulk.scoring import TorchScorer, budget_batches
from intents.calibrations import Calibration
from intents.deciding import decide
from tests.predict_fixtures import (
    INTENTS,
    REPOSITORY,
    answer,
    classifier,  # noqa: F401
    command,
    make_classifier,
    read_jsonl,
    texts_of,
    write_jsonl,
)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def one_by_one(folder, texts):
    """Return (intents, confidences), each text scored alone by transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt", truncation=True)).logits[0] for text in texts]
    probabilities = [torch.softmax(row, 0) for row in logits]
    return [INTENTS[int(row.argmax())] for row in probabilities], [float(row.max()) for row in probabilities]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_every_row_gets_the_answer_that_it_gets_alone_in_every_format(classifier, tmp_path, suffix):  # noqa: F811
    texts = texts_of(150)
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    rows = [{"id": f"r{number}", "text": text, "note": 'a,\t"b"'} for number, text in enumerate(texts)]
    if suffix == "jsonl":
        write_jsonl(source, rows)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        opener = gzip.open if suffix.endswith("gz") else open
        with opener(source, "wt", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text", "note"], delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)

    answer(source, target, "--model", classifier)

    if suffix == "jsonl":
        answers = read_jsonl(target)
    elif suffix == "parquet":
        answers = pq.read_table(target).to_pylist()
    else:
        opener = gzip.open if suffix.endswith("gz") else open
        with opener(target, "rt", encoding="utf-8", newline="") as file:
            answers = list(csv.DictReader(file, delimiter="\t" if suffix == "tsv" else ","))
    intents, confidences = one_by_one(classifier, texts)
    assert len(set(intents)) > 1
    assert [{name: row[name] for name in ("id", "text", "note")} for row in answers] == rows
    assert [row["intent"] for row in answers] == intents
    np.testing.assert_allclose([float(row["confidence"]) for row in answers], confidences, atol=2e-6)
    assert {row["reason"] for row in answers} == {""}


def test_probabilities_sum_to_one_and_the_confidence_is_the_largest(classifier, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_of(30)])
    answer(tmp_path / "in.jsonl", tmp_path / "out.parquet", "--model", classifier, "--probabilities")
    for row in pq.read_table(tmp_path / "out.parquet").to_pylist():
        probabilities = {intent: row[f"probability_{intent}"] for intent in INTENTS}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert max(probabilities, key=probabilities.get) == row["intent"]
        assert max(probabilities.values()) == row["confidence"]


def test_bad_csv_rows_are_answered_in_their_place_with_a_reason(classifier, tmp_path):  # noqa: F811
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
    ]  # fmt: skip
    (tmp_path / "in.csv").write_bytes(b"\r\n".join(lines) + b"\r\n")
    done = command(tmp_path / "in.csv", tmp_path / "out.csv", "--model", classifier)
    assert done.returncode == 0, done.stderr
    answers = read_csv(tmp_path / "out.csv")
    reasons = [row["reason"] for row in answers]
    assert [row["id"] for row in answers] == ["1", "2", "3", "4", "", "6", "7", "8", "9", "10", "11"]
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
    ]
    assert [bool(row["intent"]) for row in answers] == [not reason for reason in reasons]
    assert [bool(row["confidence"]) for row in answers] == [not reason for reason in reasons]
    assert b"11 rows, 7 of them bad" in done.stderr


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


def test_json_objects_with_different_keys_become_one_table(classifier, tmp_path):  # noqa: F811
    rows = [{"text": "open it", "n": 1}, {"text": "it", "n": 1.5, "late": True}, {"text": "on", "mixed": [1]}]
    write_jsonl(tmp_path / "in.jsonl", rows)
    answer(tmp_path / "in.jsonl", tmp_path / "out.parquet", "--model", classifier)
    written = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert written["n"] == [1.0, 1.5, None]
    assert written["late"] == [None, True, None]
    assert written["mixed"] == [None, None, "[1]"]


def test_a_folder_is_resumed_by_part_and_answered_anew_where_input_or_model_changed(classifier, tmp_path):  # noqa: F811
    for number in range(3):
        write_jsonl(tmp_path / f"in/day={number}/part.jsonl", [{"text": text} for text in texts_of(20)])
    (tmp_path / "in/_SUCCESS").touch()
    (tmp_path / "in/day=1/part.jsonl").rename(tmp_path / "in/day=1/part.parquet")  # not Parquet: this part fails
    with pytest.raises(ValueError, match=r"1 of 3 parts failed.*\n.*day=1/part.parquet: .*not a readable Parquet file"):
        answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    paths = [tmp_path / f"out/day={number}/part.jsonl" for number in range(3)]
    assert [path.exists() for path in paths] == [True, False, True]
    (tmp_path / "in/day=1/part.parquet").rename(tmp_path / "in/day=1/part.jsonl")
    first = paths[0].stat().st_ino

    done = command(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert b"60 rows; 40 were answered by an earlier run" in done.stderr
    assert [len(read_jsonl(path)) for path in paths] == [20, 20, 20]
    assert paths[0].stat().st_ino == first

    write_jsonl(tmp_path / "in/day=0/part.jsonl", [{"text": "changed"}])
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert len(read_jsonl(paths[0])) == 1
    untouched = paths[2].read_text()
    answer(tmp_path / "in", tmp_path / "out", "--model", make_classifier(tmp_path / "other", seed=5))
    assert paths[2].read_text() != untouched


def test_a_run_killed_in_the_middle_leaves_whole_parts_alone_and_goes_on_with_the_rest(classifier, tmp_path):  # noqa: F811
    for number in range(12):
        write_jsonl(tmp_path / f"in/{number:02}.jsonl", [{"text": text} for text in texts_of(4000)])
    line = [sys.executable, "-m", "apps.predict", tmp_path / "in", tmp_path / "out", "--model", classifier]
    running = subprocess.Popen(line, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("*.jsonl")):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    written = sorted((tmp_path / "out").glob("[0-9]*.jsonl"))
    assert 1 <= len(written) < 12
    assert {len(read_jsonl(path)) for path in written} == {4000}
    answer(tmp_path / "in", tmp_path / "out", "--model", classifier)
    assert [len(read_jsonl(tmp_path / f"out/{number:02}.jsonl")) for number in range(12)] == [4000] * 12


def test_a_glob_keeps_relative_names_and_a_folder_can_be_converted(classifier, tmp_path):  # noqa: F811
    for name in ("a/x.jsonl", "b/x.jsonl", "b/y.csv"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text('{"text": "on"}\n' if name.endswith("jsonl") else "text\non\n")
    answer(tmp_path / "in/*/x.jsonl", tmp_path / "out", "--model", classifier, "--output-format", "parquet")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.parquet"))
    assert found == ["a/x.parquet", "b/x.parquet"]


def test_standard_input_and_output_hold_nothing_but_rows(classifier):  # noqa: F811
    done = command(
        "-", "-", "--model", classifier, "--input-format", "csv", "--output-format", "jsonl", input=b"text\nopen it\n\n"
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["reason"] for line in done.stdout.splitlines()] == ["", "empty line"]
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["on", "off"]}), table)
    done = command("-", "-", "--model", classifier, "--input-format", "parquet", input=table.getvalue().to_pybytes())
    assert pq.read_table(pa.BufferReader(done.stdout)).column("text").to_pylist() == ["on", "off"]


def test_a_reader_that_stops_early_ends_the_command_quietly(classifier, tmp_path):  # noqa: F811
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_of(5000)])
    line = f"{sys.executable} -m apps.predict {source} - --model {classifier} --output-format jsonl | head -n 1"
    done = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, capture_output=True, check=True)
    assert done.stdout.count(b"\n") == 1
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
        (["-", "out.csv"], "standard input has no suffix; give --input-format"),
        (["-", "out.csv", "--input-format", "jsonl"], "JSONL from standard input can only become JSONL"),
        (["*.nothing", "out"], "holds no table"),
    ],
)
def test_mistakes_are_explained_and_leave_no_output(classifier, tmp_path, monkeypatch, arguments, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("text,intent\non,lights\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/in.csv").write_text("text\non\n")
    before = sorted(tmp_path.rglob("*"))
    model = [] if "--model" in arguments else ["--model", classifier]
    with pytest.raises(ValueError) as caught:
        answer(*arguments, *model)
    assert message in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


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


def test_batches_hold_every_text_once_within_the_budget_shortest_first():
    random = np.random.default_rng(0)
    lengths = random.integers(1, 64, size=1000).tolist()
    batches = list(budget_batches(lengths, 256))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 256 for batch in batches)
    assert [lengths[index] for index in np.concatenate(batches)] == sorted(lengths)
    assert [batch.tolist() for batch in budget_batches([300, 2], 256)] == [[1], [0]]
    assert list(budget_batches([], 256)) == []


def test_answers_below_their_threshold_become_the_reject_intent():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    intents, confidences = decide(probabilities, ["act", "none"], Calibration(thresholds={"act": 0.7}, reject="none"))
    assert intents == ["none", "act", "none"]
    np.testing.assert_allclose(confidences, [0.6, 0.9, 0.8])
    assert decide(probabilities, ["act", "none"], Calibration(thresholds={"act": 0.7}))[0] == ["act", "act", "none"]


def test_the_calibration_beside_a_checkpoint_is_applied(tmp_path):
    folder = make_classifier(tmp_path)
    texts = texts_of(40)
    plain = TorchScorer(folder).probabilities(texts)
    calibration = {"temperature": 4.0, "thresholds": dict.fromkeys(INTENTS, 1.01), "reject": "no_intent"}
    calibration["no_action"] = ["no_intent"]
    (folder / "calibration.json").write_text(json.dumps(calibration))
    assert TorchScorer(folder).probabilities(texts).max() < plain.max()
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    answer(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", folder)
    assert {row["intent"] for row in read_jsonl(tmp_path / "out.jsonl")} == {"no_intent"}


def test_a_revision_answers_with_its_own_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    environment["GIT_COMMITTER_EMAIL"] = "a@b"

    def sh(line):
        subprocess.run(line, shell=True, check=True, env=environment, capture_output=True)

    def commit(seed):
        sh("rm -rf models")
        make_classifier(Path("scratch") / str(seed), seed)
        Path("models").mkdir()
        Path(f"scratch/{seed}/classifier").rename("models/classifier")
        sh(f"{sys.executable} -m dvc add -q models/classifier && git add -A")
        sh(f"git commit -qm {seed} && git tag v{seed}")

    sh(f"git init -q && {sys.executable} -m dvc init -q && echo /scratch > .gitignore")
    commit(1)
    commit(2)
    write_jsonl(tmp_path / "scratch/in.jsonl", [{"text": text} for text in texts_of(40)])
    answer("scratch/in.jsonl", "scratch/tag.jsonl", "--rev", "v1")
    answer("scratch/in.jsonl", "scratch/here.jsonl")
    answer("scratch/in.jsonl", "scratch/named.jsonl", "--rev", "v2", "--model", "models/classifier")
    tag, here, named = (Path(f"scratch/{name}.jsonl").read_text() for name in ("tag", "here", "named"))
    assert tag != here == named
    with pytest.raises(ValueError, match="no branch, tag, commit or experiment is called 'v9'"):
        answer("scratch/in.jsonl", "scratch/x.jsonl", "--rev", "v9")
