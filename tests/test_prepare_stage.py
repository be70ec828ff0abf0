import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from intents.tables import intents_of
from stages import prepare, tokenize

REPOSITORY = Path(__file__).resolve().parents[1]

VERBS = {"open": "open", "lower": "open", "shut": "close", "raise": "close"}
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
ROWS = [(f"{verb} {thing}", intent) for verb, intent in VERBS.items() for thing in THINGS]


@pytest.fixture
def small(workspace, write_csv):
    """Set the source to a small file and return the function that changes other settings of `prepare`."""
    write_csv("raw.csv", ["text", "intent"], ROWS)

    def change(**changes):
        workspace("prepare", **({"source": "raw.csv", "exclude_intents": []} | changes))

    change()
    return change


def read_splits():
    return {split: pq.read_table(f"data/prepared/{split}.parquet") for split in ("train", "validation", "test")}


def test_the_repositorys_own_data_is_prepared_without_leaks(workspace, capsys, driver_texts):
    workspace("prepare", source=str(REPOSITORY / "data/raw/driver_intents.csv"))
    prepare.main()
    splits = read_splits()
    metrics = json.loads(Path("metrics/prepare.json").read_text())
    with open("data/prepared/rejected.csv", encoding="utf-8", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert sum(table.num_rows for table in splits.values()) + len(rejected) == len(driver_texts)
    assert metrics["rows"] == {split: table.num_rows for split, table in splits.items()}
    assert metrics["leaked_pairs"] == 0
    kept = sum(metrics["rows"].values())
    assert metrics["rows"]["test"] / kept == pytest.approx(0.15, abs=0.01)
    assert metrics["rows"]["validation"] / kept == pytest.approx(0.15, abs=0.01)
    intents = intents_of(Path("data/prepared/train.parquet"))
    assert "high_beams_on" not in intents
    assert all(set(table["intent"].to_pylist()) == set(intents) for table in splits.values())
    assert f"prepared {metrics['rows']['train']} train" in capsys.readouterr().out


def test_running_twice_writes_the_same_bytes(small):
    written = []
    for _ in range(2):
        prepare.main()
        files = sorted(path for path in Path().rglob("*") if path.is_file() and path.name != "params.yaml")
        written.append({path: path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert len(written[0]) == 7  # four tables, rejected rows, metrics, and the source


def test_unlabelled_texts_are_kept_that_are_no_repeat_and_unlike_every_labelled_row(small, write_csv, capsys):
    texts = [
        "fold the mirror in",
        "Open LEFT window!",
        "Fold the mirror in",
        "tilt my chair back",
        "give us a breeze now",
    ]
    write_csv("log.csv", ["when", "text"], [["today", text] for text in texts])
    write_csv("test.csv", ["text", "intent"], [("give us a breeze", "open"), ("it is too loud here", "close")])
    small(unlabelled_source="log.csv", test_source="test.csv")
    prepare.main()
    table = pq.read_table("data/prepared/unlabelled.parquet")
    assert table["text"].to_pylist() == ["fold the mirror in", "tilt my chair back"]
    assert table["row"].to_pylist() == [2, 5]
    assert set(table["label"].to_pylist()) == {-1}
    metrics = json.loads(Path("metrics/prepare.json").read_text())
    assert metrics["unlabelled"] == {"rows": 2, "left_out": 3}
    assert "and 2 unlabelled ones; 3 more repeat others or labelled rows" in capsys.readouterr().out


def test_without_unlabelled_texts_their_table_is_empty_and_metrics_are_silent(small):
    prepare.main()
    assert pq.read_metadata("data/prepared/unlabelled.parquet").num_rows == 0
    assert "unlabelled" not in json.loads(Path("metrics/prepare.json").read_text())


def test_problems_of_unlabelled_rows_are_listed_with_those_of_the_others(small, write_csv):
    Path("log.jsonl").write_text('{"text": "fold the mirror in"}\n{"text": 7}\n')
    write_csv("raw.csv", ["text", "intent"], [*ROWS, ("open it", "")])
    small(unlabelled_source="log.jsonl")
    match = r"raw.csv, row 34: empty intent\n  log.jsonl, row 2: text must be a string, found int"
    with pytest.raises(ValueError, match=match):
        prepare.main()


def test_unlabelled_rows_without_a_text_are_passed_over(small):
    Path("log.jsonl").write_text('{"text": " "}\n{"text": null}\n{"text": "fold the mirror in"}\n')
    small(unlabelled_source="log.jsonl")
    prepare.main()
    assert pq.read_table("data/prepared/unlabelled.parquet")["row"].to_pylist() == [3]


def test_a_file_without_any_new_text_is_refused(small, write_csv):
    small(unlabelled_source="log.csv")
    write_csv("log.csv", ["text"], [])
    with pytest.raises(ValueError, match="prepare.unlabelled_source: log.csv holds no text; set it to data/none"):
        prepare.main()
    write_csv("log.csv", ["text"], [["Open left window!"]])
    with pytest.raises(ValueError, match="every text in log.csv is much like a labelled row"):
        prepare.main()


def test_unlabelled_texts_that_could_not_be_out_of_scope_are_refused(small, write_csv):
    write_csv("log.csv", ["text"], [["fold the mirror in"]])
    write_csv("raw.csv", ["text", "intent"], [*ROWS, *((f"oddly unlike text {n} {n}", "oos") for n in "abcdefgh")])
    small(unlabelled_source="log.csv", out_of_scope_intent="oos", out_of_scope_use="threshold")
    with pytest.raises(ValueError, match="none of the texts in log.csv could be taken for 'oos'"):
        prepare.main()


def test_official_files_become_validation_and_test(small, write_csv):
    official = {
        "validation": [("tilt my chair back", "open"), ("no more fresh air", "close")],
        "test": [
            ("give us a breeze", "open"),
            ("it is too loud here", "close"),
            ("Open LEFT window", "open"),
        ],
    }
    for split, rows in official.items():
        write_csv(f"{split}.csv", ["text", "intent"], rows)
    small(validation_source="validation.csv", test_source="test.csv")
    prepare.main()
    splits = read_splits()
    for split, rows in official.items():
        assert splits[split]["text"].to_pylist() == [text for text, _ in rows]
    assert splits["train"].num_rows == len(ROWS) - 1  # without the copy of a test row
    assert "open left window" in Path("data/prepared/rejected.csv").read_text()


def test_near_duplicates_of_official_rows_can_be_kept_and_are_counted(small, write_csv):
    write_csv("test.csv", ["text", "intent"], [("open left window", "open"), ("shut glove box", "close")])
    small(test_source="test.csv", near_duplicates_of_official="keep")
    prepare.main()
    metrics = json.loads(Path("metrics/prepare.json").read_text())
    assert metrics["leaked_pairs"] == 2
    assert sum(metrics["rows"].values()) == len(ROWS) + 2


def test_a_source_in_latin_1_under_other_column_names_is_read(small):
    rows = [(text.replace("o", "ö"), intent) for text, intent in ROWS]
    Path("raw.tsv").write_text("klasse\tsatz\n" + "".join(f"{i}\t{t}\n" for t, i in rows), encoding="latin-1")
    small(source="raw.tsv", encoding="latin-1", text_column="satz", intent_column="klasse")
    prepare.main()
    assert {text for table in read_splits().values() for text in table["text"].to_pylist()} == {t for t, _ in rows}


def test_a_mistake_leaves_the_earlier_outputs(small, write_csv):
    prepare.main()
    before = read_splits()
    write_csv("raw.csv", ["text", "intent"], [*ROWS, ("", "open")])
    with pytest.raises(ValueError, match="raw.csv, row 34: empty text"):
        prepare.main()
    assert read_splits() == before


def test_the_seed_decides_who_is_where(small):
    prepare.main()
    before = read_splits()
    small(seed=1)
    prepare.main()
    assert read_splits()["test"] != before["test"]
    assert read_splits()["test"].num_rows == before["test"].num_rows


@pytest.mark.parametrize(
    "change, message",
    [
        ({"conflicts": "ignore"}, r"prepare.conflicts: input should be 'error' or 'drop', got 'ignore'"),
        ({"test_share": 1.5}, r"prepare.test_share: input should be less than 1, got 1.5"),
        ({"near_duplicate_threshold": 0.1}, r"prepare.near_duplicate_threshold: .*got 0.1"),
        ({"validation_share": 0.5, "test_share": 0.5}, r"validation_share \+ test_share must stay below 1"),
        ({"sorce": "x.csv"}, r"prepare.sorce: unknown setting; prepare has: source, validation_source"),
        ({"source": "nowhere.csv"}, r"nowhere.csv does not exist or is not a file; prepare.source"),
        ({"test_source": "gone.csv"}, r"gone.csv does not exist or is not a file; .*test_source"),
        ({"text_column": "satz"}, r"no column 'satz' \(prepare.text_column\); its columns: text, intent"),
        (
            {"split_column": "splt"},
            r"prepare.split_column: no file has a column 'splt'; their columns: text, intent;",
        ),
        ({"kind_column": "sort"}, "prepare.kind_column: no file has a column 'sort'"),
    ],
)
def test_a_wrong_setting_is_named_with_the_value(small, change, message):
    small(**change)
    with pytest.raises(ValueError, match=message):
        prepare.main()


def test_the_command_ends_a_mistake_without_traceback(small, write_csv):
    write_csv("raw.csv", ["text", "intent"], [*ROWS, ("Open left window.", "close")])
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-m", "stages.prepare"], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: 1 problem(s) in the data\n")
    assert "raw.csv, row 2: open; raw.csv, row 34: close" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("data").exists()


def test_tokenize_follows_with_the_same_rows(small, workspace, tiny_encoder):
    prepare.main()
    Path("models").mkdir()
    Path("models/encoder").symlink_to(tiny_encoder)
    workspace("tokenize", max_length=4, mistyped_share=0.5, slips=1.0)
    tokenize.main()
    metrics = json.loads(Path("metrics/tokenize.json").read_text())
    for split, table in read_splits().items():
        tokenized = pq.read_table(f"data/tokenized/{split}.parquet")
        mistyped = metrics["mistyped"] if split == "train" else 0
        assert tokenized["label"].to_pylist()[: table.num_rows] == table["label"].to_pylist()
        assert tokenized.num_rows == table.num_rows + mistyped
        assert metrics["truncated"][split] == tokenized.num_rows  # all have three words and so five tokens
    assert metrics["mistyped"] == round(0.5 * read_splits()["train"].num_rows)
    assert metrics["tokens_per_text"] == 4


def test_one_file_for_two_sources_is_refused(small):
    for changed in ({"test_source": "raw.csv"}, {"validation_source": "./raw.csv"}):
        small(**changed)
        with pytest.raises(ValueError, match=rf"prepare.source and prepare.{next(iter(changed))} name the same file"):
            prepare.main()


def test_official_rows_that_all_repeat_test_rows_are_not_replaced_by_carved_ones(small, write_csv):
    rows = [["open the sun roof at once", "open"], ["close the sun roof at once", "close"]]
    write_csv("validation.csv", ["text", "intent"], rows)
    write_csv("test.csv", ["text", "intent"], rows)
    small(validation_source="validation.csv", test_source="test.csv")
    with pytest.raises(ValueError, match="every official validation row is a near-duplicate of a test"):
        prepare.main()


def test_conflicts_are_dropped_where_the_setting_says_so(small, write_csv):
    write_csv("raw.csv", ["text", "intent"], [*ROWS, ("OPEN, left window!", "close")])
    small(conflicts="drop")
    prepare.main()
    assert "open left window" not in {text.lower() for t in read_splits().values() for text in t["text"].to_pylist()}


def test_validation_and_test_have_shares_of_their_own(small):
    small(validation_share=0.25, test_share=0.125)
    prepare.main()
    assert {split: t.num_rows for split, t in read_splits().items()} == {"train": 20, "validation": 8, "test": 4}


@pytest.mark.parametrize(("use", "trained"), [("class", True), ("both", True), ("threshold", False)])
def test_out_of_scope_rows_are_trained_on_unless_they_are_for_thresholds_alone(small, write_csv, use, trained):
    write_csv("raw.csv", ["text", "intent"], [*ROWS, *((f"{n} oddly unlike {n} {n}", "oos") for n in "abcdefgh")])
    small(out_of_scope_intent="oos", out_of_scope_use=use)
    prepare.main()
    assert ("oos" in read_splits()["train"]["intent"].to_pylist()) == trained


def test_the_seed_of_tokenize_draws_the_texts_and_the_slips(small, workspace, tiny_encoder):
    prepare.main()
    Path("models").mkdir()
    Path("models/encoder").symlink_to(tiny_encoder)
    written = []
    for seed in (0, 0, 1):
        workspace("tokenize", max_length=16, mistyped_share=0.5, slips=0.9, seed=seed)
        tokenize.main()
        written.append(Path("data/tokenized/train.parquet").read_bytes())
    assert written[0] == written[1] != written[2]


def test_official_rows_that_all_go_are_not_replaced_by_carved_ones(small, write_csv):
    write_csv("raw.csv", ["text", "intent"], [*ROWS, *((f"fax {n} to the office", "fax") for n in range(4))])
    write_csv("test.csv", ["text", "intent"], [["send a fax home", "fax"], ["a fax, please", "fax"]])
    small(test_source="test.csv", exclude_intents=["fax"])
    with pytest.raises(ValueError, match=r"no official test row is left \(2 excluded intent\): give others, or none"):
        prepare.main()


@pytest.mark.parametrize("setting", ["source", "validation_source", "test_source"])
def test_a_file_with_a_header_alone_is_refused(small, write_csv, setting):
    write_csv("empty.csv", ["text", "intent"], [])
    small(**{setting: "empty.csv"}, exclude_intents=["nobody"])
    with pytest.raises(ValueError, match=f"prepare.{setting}: empty.csv has a header and no rows; name another file"):
        prepare.main()


def test_a_test_file_with_the_rows_of_the_source_says_how_to_keep_them(small, write_csv):
    write_csv("test.csv", ["text", "intent"], ROWS)
    small(test_source="test.csv")
    with pytest.raises(ValueError, match=r"set prepare.near_duplicates_of_official=keep \(\d+ were left out as such\)"):
        prepare.main()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "data/none"}, "prepare.source must name a table of labelled texts, got data/none"),
        ({"intent_column": "text"}, "prepare.text_column and prepare.intent_column are the same column, 'text'"),
    ],
)
def test_a_source_that_is_none_and_one_column_for_two_are_refused(small, change, message):
    small(**change)
    with pytest.raises(ValueError, match=message):
        prepare.main()


def test_a_path_that_is_none_names_the_remedy(small):
    small(test_source=None)
    with pytest.raises(
        ValueError, match=r"prepare.test_source: must be the path of a file \(data/none: none\), got None"
    ):
        prepare.main()


def test_official_files_that_lack_an_intent_and_intents_that_nearly_share_a_name_are_said(small, write_csv, capsys):
    rows = [(text, intent.title() if intent == "open" and "lid" in text else intent) for text, intent in ROWS]
    write_csv("raw.csv", ["text", "intent"], [*rows, ("open the tent", "Open"), ("lower the tent", "Open")])
    write_csv("valid.csv", ["text", "intent"], [("open the porch", "open"), ("lower the desk", "Open")])
    small(validation_source="valid.csv")
    prepare.main()
    printed = capsys.readouterr().out.splitlines()
    assert "validation has no row of close" in printed
    assert not [line for line in printed if line.startswith("test has no row")]
    assert "'Open' and 'open' count as different intents: if they are one, write them alike" in printed
    small(validation_source="data/none")
    prepare.main()
    assert "has no row of" not in capsys.readouterr().out


def test_an_official_file_may_not_name_another_split_for_its_rows(small, write_csv):
    header = ["text", "intent", "split"]
    write_csv("test.csv", header, [["raise the seat", "open", "train"], ["lower the seat", "close", "test"]])
    small(test_source="test.csv")
    with pytest.raises(ValueError, match=r"test.csv, row 2: says train, but prepare.test_source makes it test"):
        prepare.main()


def test_a_split_has_its_rows_from_one_file(small, write_csv):
    write_csv("all.csv", ["text", "intent", "split"], [["raise the seat", "open", "test"], ["up", "open", "train"]])
    write_csv("test.csv", ["text", "intent"], [["lower the seat", "open"]])
    small(source="all.csv", test_source="test.csv")
    with pytest.raises(ValueError, match=r"all.csv, row 2: says test, for which prepare.test_source names a file"):
        prepare.main()


def test_a_loop_of_links_is_one_line(small):
    Path("loop.csv").symlink_to("loop.csv")
    small(source="loop.csv")
    with pytest.raises(ValueError, match="loop.csv does not exist or is not a file"):
        prepare.main()
