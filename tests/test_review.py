import csv
import sys

import pytest

from apps import review
from stages import prepare as prepare_stage
from tests.tiny_encoder import write_encoder, write_examples

SOURCE = "data/raw/examples.csv"


@pytest.fixture
def project(workspace, tmp_path, monkeypatch):
    """Prepared examples, row 5 of them mislabelled, and a tiny encoder; returns a function that runs the command."""
    source = tmp_path / SOURCE
    write_examples(source)
    write_encoder(tmp_path / "models/encoder", source)
    lines = source.read_text().splitlines(keepends=True)
    assert lines[4].endswith(",window_down\n")
    lines[4] = lines[4].replace("window_down", "wipers_on")
    source.write_text("".join(lines))
    workspace("tokenize", max_length=32)
    workspace("prepare", source=SOURCE, exclude_intents=[], test_share=0.02, validation_share=0.2)
    prepare_stage.main()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["review", *map(str, arguments)])
        review.main()

    return run


def read(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def correct(path, **corrections):
    """Fill in corrected_intent of the rows with those numbers, as a person would."""
    rows = read(path)
    for row in rows:
        row["corrected_intent"] = corrections.get("row" + row["row"], "")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_wrong_label_is_found_corrected_and_merged_back(project, tmp_path, capsys):
    before = (tmp_path / SOURCE).read_text()
    project()
    assert "Probably mislabelled" in capsys.readouterr().out
    first = read("review.csv")[0]
    assert (first["file"], first["row"], first["intent"]) == (SOURCE, "5", "wipers_on")
    assert (first["suggested_intent"], first["reason"], first["corrected_intent"]) == ("window_down", "mislabelled", "")
    assert f"{SOURCE}, row " in first["neighbour"]

    correct("review.csv", row5="window_down")
    with pytest.raises(ValueError, match="review.csv has corrections that are not in the data yet: merge it"):
        project()
    project("--merge", "review.csv")
    assert f"{SOURCE}, row 5: wipers_on -> window_down" in capsys.readouterr().out
    after = (tmp_path / SOURCE).read_text().splitlines()
    assert [line for line in after if line not in before.splitlines()] == [after[4]]
    assert after[4].endswith(",window_down")

    with pytest.raises(ValueError, match=r"data/prepared is older than the data: .*run `dvc repro prepare`"):
        project()
    prepare_stage.main()
    project()
    assert all(row["row"] != "5" or row["reason"] != "mislabelled" for row in read("review.csv"))


def test_test_rows_are_reviewed_only_on_demand(project, tmp_path, capsys):
    import pyarrow.parquet as pq

    of_test = set(pq.read_table("data/prepared/test.parquet")["row"].to_pylist())
    every = ("--top", "100", "--min-similarity", "-1")
    project(*every)
    assert not of_test & {int(row["row"]) for row in read("review.csv")}
    project(*every, "--include-test")
    assert of_test & {int(row["row"]) for row in read("review.csv")}
    assert "test rows are among them" in capsys.readouterr().out


def test_unlabelled_texts_are_listed_labelled_and_appended(project, tmp_path, write_csv, capsys):
    known = read(SOURCE)[0]["text"]
    clear = "open the window glass pane air lower"
    unclear = "open wipers window rain wet glass"
    calls = write_csv("calls.csv", ["id", "said"], [["1", known], ["2", clear], ["3", unclear], ["4", unclear + "!"]])
    listed = ("--unlabelled", calls, "--text-column", "said")
    project(*listed)
    output = capsys.readouterr().out
    assert "1 of 4 texts are in the data already" in output
    assert "there is no models/classifier: scoring with logistic regression" in output
    rows = read("review.csv")
    assert [row["text"].strip("!") for row in rows] == [unclear, clear]
    assert {row["reason"] for row in rows} == {"unlabelled"}

    correct("review.csv", row4="wipers_on", row5="wipers_on")
    project(*output.splitlines()[-1].partition("-m apps.review ")[2].split())
    assert (tmp_path / SOURCE).read_text().splitlines()[-1] == f"{rows[0]['text']},wipers_on"
    project(*listed)
    assert [row["text"] for row in read("review.csv")] == [clear]


def test_the_trained_classifier_scores_where_there_is_one(project, tmp_path, write_csv, capsys):
    from transformers import AutoTokenizer

    from intents.classifier import build_classifier

    encoder = tmp_path / "models/encoder"
    folder = tmp_path / "models/classifier"
    build_classifier(encoder, ["cooling_on", "window_down", "wipers_on"], "mean", 10.0).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    project("--unlabelled", write_csv("calls.csv", ["text"], [["open the window"], ["rain drops"]]), "--top", "1")
    assert "logistic regression" not in capsys.readouterr().out
    assert len(read("review.csv")) == 1


def test_what_is_missing_is_named(project, tmp_path, monkeypatch):
    (tmp_path / "models/encoder/config.json").unlink()
    with pytest.raises(ValueError, match="models/encoder holds no encoder .*run `dvc repro encoder`"):
        project()
    (tmp_path / "data/prepared/train.parquet").unlink()
    with pytest.raises(ValueError, match="data/prepared/train.parquet does not exist: run `dvc repro prepare`"):
        project()
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(ValueError, match=r"needs cleanlab: pip install -c constraints.txt -e '\.\[review\]'"):
        project()


def test_a_classifier_of_other_data_scores_nothing(project, tmp_path, write_csv, capsys):
    from transformers import AutoTokenizer

    from intents.classifier import build_classifier

    encoder, folder = tmp_path / "models/encoder", tmp_path / "models/classifier"
    build_classifier(encoder, ["refund", "window_down"], "mean", 10.0).save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    project("--unlabelled", write_csv("calls.csv", ["text"], [["rain drops"]]))
    assert "models/classifier is of other data (no row has the intent 'refund')" in capsys.readouterr().out
    assert read("review.csv")[0]["suggested_intent"] != "refund"


def test_a_review_that_is_not_there_names_what_writes_one(project):
    with pytest.raises(ValueError, match="review.csv does not exist; python -m apps.review writes such a file"):
        project("--merge", "review.csv")


def test_a_misspelt_intent_and_a_text_that_has_changed_are_refused_by_the_command(project, write_csv):
    calls = write_csv("calls.csv", ["id", "text"], [["2", "open the window glass pane air lower"]])
    project("--unlabelled", calls)
    correct("review.csv", row2="wipers_onn")
    with pytest.raises(ValueError, match="unknown corrected_intent 'wipers_onn'"):
        project("--merge", "review.csv")
    correct("review.csv", row2="wipers_on")
    write_csv("calls.csv", ["id", "text"], [["2", "another text"]])
    with pytest.raises(ValueError, match="row 2 should be .* but there stands 'another text'"):
        project("--merge", "review.csv")
