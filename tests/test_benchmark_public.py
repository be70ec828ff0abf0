"""The public benchmark on made-up data with a tiny encoder; stages run in this process, which saves their imports."""

import csv
import importlib
import json
import random
import re
import sys

import pyarrow.parquet as pq
import pytest

from benchmarks.public import pipeline, results, run, sets
from tests.conftest import REPOSITORY
from tests.tiny_encoder import write_encoder

INTENTS = {"a": ["open", "window", "glass"], "b": ["wipers", "rain", "wet"], "oos": ["song", "joke", "pizza"]}
FILLERS = [x + y for x in ("ka", "lo", "mi", "nu", "re", "so") for y in ("bra", "den", "fil", "gor", "hup")]
QUICK = ["-S", "train.num_epochs=2", "-S", "train.min_steps=0", "-S", "train.precision=fp32"]


def write_rows(path, intents, num_rows, chance):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        for intent in intents:
            for _ in range(num_rows):
                words = chance.sample(INTENTS[intent], 2) + chance.sample(FILLERS, 4)
                writer.writerow([" ".join(chance.sample(words, 6)), intent])


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def public_data(tmp_path, monkeypatch):
    """A folder like that of the public data; its encoder lies beside it."""
    folder, chance = tmp_path / "data", random.Random(0)
    for split, num_rows in (("train", 40), ("validation", 12), ("test", 12)):
        write_rows(folder / f"clinc150/{split}.csv", ["a", "b"], num_rows, chance)
        write_rows(folder / f"clinc150/oos_{split}.csv", ["oos"], num_rows, chance)
    write_rows(folder / "clinc150/variants/oos_train_plus.csv", ["oos"], 100, chance)
    for split, num_rows in (("train", 40), ("test", 12)):
        write_rows(folder / f"banking77/{split}.csv", ["a", "b"], num_rows, chance)
    monkeypatch.setenv(sets.DATA_VARIABLE, str(folder))
    write_encoder(tmp_path / "encoder", folder / "clinc150/train.csv")
    return folder


@pytest.fixture
def benchmark(tmp_path, monkeypatch, public_data):
    """Return a function that runs the benchmark; it returns the stages that ran, each with the files that it saw."""
    monkeypatch.chdir(REPOSITORY)
    ran = []

    def run_stage(stage, folder):
        ran.append((stage, {path.relative_to(folder).as_posix() for path in folder.rglob("*")}))
        with monkeypatch.context() as inside:
            inside.chdir(folder)
            importlib.import_module(f"stages.{stage}").main()

    monkeypatch.setattr(pipeline, "run_stage", run_stage)

    def benchmark(*arguments):
        ran.clear()
        options = ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
        encoder = ["-S", f"encoder.name={tmp_path / 'encoder'}"]
        monkeypatch.setattr(sys, "argv", ["run", *arguments, *options, *encoder, *QUICK])
        run.main()
        return list(ran)

    return benchmark


def recorded(tmp_path, name="experiments"):
    return json.loads((tmp_path / f"results/{name}.json").read_text(encoding="utf-8"))


def test_two_seeds_end_to_end(tmp_path, benchmark, capsys):
    ran = [stage for stage, _ in benchmark("clinc150", "--seeds", "0", "1")]
    assert sorted(ran) == sorted(
        ["encoder", "prepare", "tokenize", "baselines", *["train", "calibrate", "evaluate"] * 2]
    )

    (tried,) = recorded(tmp_path)
    assert [found["seed"] for found in tried["runs"]] == [0, 1]
    for found, folder in zip(tried["runs"], sorted_by_age(tmp_path / "cache/stages", "evaluate"), strict=True):
        rows = pq.read_table(folder / "data/predictions/test.parquet").to_pylist()
        in_scope = [row["answer"] == row["intent"] for row in rows if row["intent"] != "oos"]
        out_of_scope = [row["answer"] == "oos" for row in rows if row["intent"] == "oos"]
        assert (len(in_scope), len(out_of_scope)) == (24, 12)
        assert found["test"]["in_scope_accuracy"] == pytest.approx(sum(in_scope) / 24, abs=1e-4)
        assert found["test"]["out_of_scope_recall"] == pytest.approx(sum(out_of_scope) / 12, abs=1e-4)
        assert found["seconds"]["train"] > 0
    shares = [found["test"]["in_scope_accuracy"] for found in tried["runs"]]
    printed = re.search(r"test: in-scope accuracy ([\d.]+) ±", capsys.readouterr().out)
    assert float(printed.group(1)) == pytest.approx(50 * sum(shares), abs=0.011)

    assert benchmark("clinc150", "--seeds", "0", "1") == []
    stricter = benchmark("clinc150", "--seeds", "0", "-S", "calibrate.max_false_action_rate=0.01")
    assert [stage for stage, _ in stricter] == ["calibrate", "evaluate"]
    assert len(recorded(tmp_path)) == 2


def test_results_of_more_seeds_are_not_replaced(tmp_path, benchmark, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/results.json").write_text('{"clinc150": {"runs": [{"seed": 0}, {"seed": 1}]}}')
    monkeypatch.setattr(sys, "argv", ["run", "clinc150", "--seeds", "0", "--results", str(tmp_path / "results")])
    with pytest.raises(ValueError, match=r"--seeds: 1 seed\(s\) would replace clinc150's results of 2"):
        run.main()


def sorted_by_age(folder, stage):
    return sorted(folder.glob(f"{stage}-*"), key=lambda path: path.stat().st_mtime_ns)


def test_validation_only_never_looks_at_the_test_split(tmp_path, benchmark, public_data):
    ran = benchmark("clinc150", "--seeds", "0", "--validation-only")
    assert [stage for stage, _ in ran] == list(run.SPLIT_STAGES)
    for stage, seen in ran:
        assert any("test" in path for path in seen) == (stage in ("prepare", "tokenize")), stage
    (tried,) = recorded(tmp_path)
    (found,) = tried["runs"]
    assert "test" not in found
    assert {"in_scope_accuracy", "out_of_scope_recall", "threshold", "macro_f1"} <= found["validation"].keys()

    swapped = {"a": "b", "b": "a"}
    path = public_data / "clinc150/test.csv"
    rows = [{**row, "label": swapped[row["label"]]} for row in read_rows(path)]
    path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows), encoding="utf-8")
    assert [stage for stage, _ in benchmark("clinc150", "--seeds", "0", "--validation-only")] == ["prepare", "tokenize"]
    assert recorded(tmp_path)[-1]["runs"][0]["validation"] == found["validation"]


def test_official_test_rows_are_left_out_only_where_they_repeat_one(tmp_path, benchmark, public_data):
    path = public_data / "banking77/test.csv"
    rows = path.read_text(encoding="utf-8")
    path.write_text(rows + rows.splitlines()[1] + "\n", encoding="utf-8")
    benchmark("banking77", "--seeds", "0", "-S", "prepare.validation_share=0.2")
    assert recorded(tmp_path)[0]["runs"][0]["test"]["examples"] == 24
    with pytest.raises(ValueError, match="test.csv, row 2: an official test row is left out: excluded intent"):
        benchmark("clinc150", "--seeds", "0", "-S", "prepare.exclude_intents=[a]")


def test_few_shot_draws_another_sample_for_every_seed(tmp_path, benchmark):
    ran = [stage for stage, _ in benchmark("banking77-10-shot", "--seeds", "0", "1", "--validation-only")]
    assert ran.count("prepare") == ran.count("train") == 2
    folder = tmp_path / "cache/data/banking77-10-shot"
    drawn = [
        {split: read_rows(folder / f"seed-{seed}/{split}.csv") for split in ("train", "validation")} for seed in (0, 1)
    ]
    for sample in drawn:
        assert [row["label"] for row in sample["train"]].count("a") == len(sample["train"]) / 2 == 10
        assert len(sample["validation"]) == 40
        assert not {row["text"] for row in sample["train"]} & {row["text"] for row in sample["validation"]}
    assert drawn[0]["train"] != drawn[1]["train"]


def test_texts_that_were_not_drawn_come_along_without_labels(tmp_path, public_data):
    sources = sets.write_sources("banking77-10-shot-unlabelled", 3, tmp_path)
    alone = sets.write_sources("banking77-10-shot", 3, tmp_path / "alone")
    for split, path in alone.items():
        assert sources[split].read_bytes() == path.read_bytes()
    texts = {split: [row["text"] for row in read_rows(path)] for split, path in sources.items()}
    unlabelled = texts["data/public/unlabelled.csv"]
    assert read_rows(sources["data/public/unlabelled.csv"])[0].keys() == {"text"}
    every = [row["text"] for row in read_rows(public_data / "banking77/train.csv")]
    assert sorted([*unlabelled, *texts["data/public/train.csv"], *texts["data/public/validation.csv"]]) == sorted(every)


def test_more_out_of_scope_rows_replace_those_of_train_alone(tmp_path, public_data):
    plus, usual = (sets.write_sources(name, 0, tmp_path / name) for name in ("clinc150-oos-plus", "clinc150"))
    for split in ("validation", "test"):
        assert plus[f"data/public/{split}.csv"].read_bytes() == usual[f"data/public/{split}.csv"].read_bytes()
    found, known = (read_rows(paths["data/public/train.csv"]) for paths in (plus, usual))
    assert [row for row in found if row["label"] != "oos"] == [row for row in known if row["label"] != "oos"]
    out_of_scope = [row for row in found if row["label"] == "oos"]
    assert out_of_scope == read_rows(public_data / "clinc150/variants/oos_train_plus.csv")
    assert run.settings_of("clinc150-oos-plus")["prepare"] == run.settings_of("clinc150")["prepare"]


def test_committed_samples_are_those_that_are_drawn(tmp_path, monkeypatch):
    if sets.missing_files("banking77-10-shot"):
        pytest.skip(f"no public data in {sets.data_dir()}: {sets.DATA_VARIABLE} names its folder")
    for seed in range(5):
        sets.write_sources("banking77-10-shot", seed, tmp_path)
    monkeypatch.setattr(sets, "SAMPLES_SHA256", ["0" * 64])
    with pytest.raises(ValueError, match="is not the sample of seed 0"):
        sets.write_sources("banking77-10-shot", 0, tmp_path)


def test_means_and_t_intervals_over_seeds():
    mean, half = results.mean_interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.302653 / 3**0.5, rel=1e-6))
    assert results.per_cent([0.94, 0.945, 0.95]) == "94.50 ± 1.24"
    assert results.per_cent([0.94]) == "94.00"


def test_results_stand_beside_the_published_rows(tmp_path):
    def made(seed, accuracy):
        split = {"accuracy": accuracy, "macro_f1": accuracy - 0.01, "examples": 9}
        machine = {"date": "2026-01-01", "commit": "abc", "processor": "one core"}
        costs = {"seconds": {"train": 10.0 + seed}, "cpu_seconds": {"train": 20.0}}
        return {"seed": seed, "validation": split, "test": split, "machine": machine, **costs}

    found = {"banking77": {"settings": {}, "runs": [made(0, 0.94), made(2, 0.95)]}}
    run.write_results(tmp_path, found, [])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "9 test rows; 2 seeds; 11 seconds per run (20). 2026-01-01, commit abc, one core." in text
    assert "| **this pipeline** | 94.50 ± 6.35 | 93.50 ± 6.35 | measured |" in text
    assert "| ConvFiT | 94.16 |  |" in text
    assert "CLINC150" not in text
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == found


@pytest.mark.parametrize("name", sets.SETS)
def test_settings_of_every_set_are_known(name, default_params):
    changes = run.settings_of(name)
    assert run.merge(default_params, changes, name)["prepare"]["intent_column"] == "label"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epochs=5", "-S: train.epochs: unknown setting; train has: head"),
        ("model.epochs=5", "-S: params.yaml has no section 'model'; it has: encoder"),
        ("train.num_epochs", "-S train.num_epochs: must be section.name=value, such as train.num_epochs=5"),
    ],
)
def test_a_wrong_setting_is_refused(default_params, change, message):
    with pytest.raises(ValueError, match=message):
        run.merge(default_params, run.parse_changes([change]), "-S")


def test_absent_data_is_skipped_with_a_message(tmp_path, benchmark, monkeypatch, capsys):
    monkeypatch.setenv(sets.DATA_VARIABLE, str(tmp_path / "nowhere"))
    assert benchmark() == []
    printed = capsys.readouterr().out
    assert f"banking77 is skipped: there is no {tmp_path / 'nowhere/banking77/train.csv'}" in printed
    assert printed.count(sets.DATA_VARIABLE) == len(sets.SETS)


def test_a_stage_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(ValueError, match="stages.prepare failed with exit code 1, see above"):
        pipeline.run_stage("prepare", tmp_path)
