"""The training benchmark, run on made-up data with a tiny encoder."""

import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks.training import run, startup
from benchmarks.training.flops import EncoderShape, training_flops
from benchmarks.training.jobs import Job
from benchmarks.training.sets import sampled
from intents.batching import TokenizedTexts
from intents.params import read_params
from intents.tables import write_table
from tests.conftest import REPOSITORY
from tests.training_fixtures import INTENTS, write_split

pytest_plugins = ["tests.training_fixtures"]
SHAPE = EncoderShape(num_layers=2, hidden=32, intermediate=64)


@pytest.fixture(scope="module")
def data_dir(splits, tmp_path_factory):
    """A set of 48 training and 20 validation texts, as prepared and as tokenized."""
    folder = tmp_path_factory.mktemp("set")
    from intents.preparing import SCHEMA
    from intents.tables import with_facts
    from intents.tokenizing import SCHEMA as TOKENIZED_SCHEMA

    for split, texts in zip(("train", "validation"), splits, strict=True):
        ids = [row["input_ids"].tolist() for row in texts]
        labels = [int(row["label"]) for row in texts]
        write_table(
            folder / "tokenized" / f"{split}.parquet",
            {"input_ids": ids, "label": labels},
            with_facts(TOKENIZED_SCHEMA, intents=INTENTS, max_length=16),
        )
        words = [" ".join(map(str, row)) for row in ids]
        kinds, names, rows = [""] * len(ids), [INTENTS[label] for label in labels], list(range(len(ids)))
        write_table(
            folder / "prepared" / f"{split}.parquet",
            {"text": words, "intent": names, "label": labels, "kind": kinds, "row": rows},
            with_facts(SCHEMA, intents=INTENTS),
        )
    return sampled(folder, {"train": 48, "validation": 20}, folder / "sampled")


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    """A random BERT with a tokenizer."""
    from tests.tiny_encoder import write_encoder, write_examples

    folder = tmp_path_factory.mktemp("tiny")
    write_examples(folder / "examples.csv")
    write_encoder(folder / "encoder", folder / "examples.csv")
    return folder / "encoder"


@pytest.mark.parametrize("system", ["pipeline", "quick", "trainer", "notebook"])
def test_every_system_trains_on_the_same_texts(system, data_dir, encoder_dir, workspace):
    from benchmarks.training.worker import train

    workspace("train", num_epochs=2, batch_size=32)
    job = Job(system, str(encoder_dir), str(data_dir), learning_rate=1e-3, max_steps=10, validation_rows=8)
    found = train(job)
    lengths = TokenizedTexts(data_dir / "tokenized/train.parquet").lengths
    if system == "notebook":  # 8 texts a step for 10 steps, all padded to the encoder's 64 positions
        assert (found["num_steps"], found["texts_per_step"]) == (10, 8)
        assert found["padding_share"] == pytest.approx(1 - found["useful_tokens_per_text"] / 64)
        assert [why for why, _ in found["pauses_s"]] == ["evaluation", "checkpoint"]
        assert (found["num_validation"], found["num_validation_all"]) == (8, 20)
    else:  # 48 texts, 32 a step, 2 epochs
        assert (found["num_steps"], found["texts_per_step"]) == (4, 24)
        assert found["useful_tokens_per_text"] == pytest.approx(lengths.mean())
        assert 0 <= found["padding_share"] < 0.5
        assert [evaluation["step"] for evaluation in found["evaluations"]] == [2, 4]
    assert found["steady_step_s"] > 0
    head, frozen = ("first", "embeddings") if system in ("pipeline", "quick") else ("native", "none")
    passes = 2 if system == "pipeline" else 1  # trained adversarially
    assert found["gflop_per_text"] == pytest.approx(passes * training_flops(lengths, SHAPE, head, 3, frozen) / 48 / 1e9)


def test_the_gpu_benchmark_measures_any_device(data_dir, encoder_dir, workspace, tmp_path):
    from benchmarks.training.gpu import COLUMNS, measure, row, write_random_encoder

    workspace("train", num_epochs=1)
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    folder = write_random_encoder(sizes, encoder_dir, tmp_path / "random")
    found = measure(folder, data_dir, read_params()["train"])
    lengths = TokenizedTexts(data_dir / "tokenized/train.parquet").lengths
    flops = training_flops(lengths, EncoderShape(1, 48, 64), "first", 3, "embeddings")
    assert found["gflop_per_text"] == pytest.approx(2 * flops / 48 / 1e9)  # trained adversarially
    texts_per_s = found["texts_per_step"] / found["last_pass_step_s"]
    rate = texts_per_s * found["gflop_per_text"]
    cells = row("tiny", found, measured_rate=2 * rate, promised_rate=None).split(" | ")
    assert len(cells) == len(COLUMNS)
    assert cells[COLUMNS.index("MFU, measured rate")] == "50.0%"
    assert cells[COLUMNS.index("MFU, data sheet")] == ""


def test_the_gpu_benchmark_knows_the_recipes_and_the_data_sheets():
    from benchmarks.training.gpu import data_sheet_rate, recipe_params

    assert recipe_params("bert-large-qlora", None)["gradient_accumulation"] == 8
    assert recipe_params("bert-large-qlora", 16) | {"batch_size": 64, "gradient_accumulation": 8} == recipe_params(
        "bert-large-qlora", None
    )
    assert data_sheet_rate("NVIDIA H100 PCIe") < data_sheet_rate("NVIDIA H100 80GB HBM3")
    assert data_sheet_rate("NVIDIA L4") < data_sheet_rate("NVIDIA L40") < data_sheet_rate("NVIDIA L40S")
    assert data_sheet_rate("Unknown") is None


def test_a_stage_that_never_trains_has_no_start_up_time(workspace, monkeypatch):
    workspace("train", num_epochs=0)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with pytest.raises(ValueError, match="ended before its first step:\n(.*\n)*.*train.num_epochs"):
        startup.measure()


@pytest.fixture
def repository(data_dir, encoder_dir, workspace, monkeypatch):
    """A working directory with what the benchmark reads."""
    workspace("tracking", report_to="none")
    workspace("train", num_epochs=1000)  # start-up does not wait for them
    Path("models").mkdir()
    Path("models/encoder").symlink_to(encoder_dir)
    Path("data").symlink_to(data_dir)
    write_split(Path("data/tokenized/unlabelled.parquet"), 0, 2)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("GIT_DIR", str(REPOSITORY / ".git"))
    return workspace


@pytest.mark.slow
def test_the_start_up_ends_at_the_first_step(repository):
    started = time.monotonic()
    assert 0 < startup.measure() < time.monotonic() - started
    assert sorted(path.name for path in Path().iterdir()) == ["data", "models", "params.yaml"]


@pytest.mark.slow
def test_newer_results_come_first(repository, tmp_path, monkeypatch):
    repository("train", num_epochs=1)
    monkeypatch.setattr(run, "RESULTS_PATH", tmp_path / "results/results.md")
    options = ["--data", "driver", "--only", "pipeline", "--threads", "1", "--startups", "0"]
    monkeypatch.setattr("sys.argv", ["run", *options])
    run.main()
    first = (tmp_path / "results/results.md").read_text()
    assert first.startswith(run.TITLE) and first.count("### driver") == 1 and "**pipeline**" in first
    run.main()
    both = (tmp_path / "results/results.md").read_text()
    assert both.startswith(run.TITLE) and both.count("### driver") == 2
    assert both.endswith(first.removeprefix(f"{run.TITLE}\n"))
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert [training["job"]["system"] for training in results["sets"]["driver"]["trainings"]] == ["pipeline"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_says_that_there_is_none(monkeypatch):
    from benchmarks.training import gpu

    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(ValueError, match=r"no CUDA device.*benchmarks\.training\.run"):
        gpu.main()


@pytest.mark.slow
def test_setfit_is_scored_while_it_trains(data_dir, encoder_dir):
    pytest.importorskip("setfit", reason="no setfit: pip install -c constraints.txt -e '.[benchmark]'")
    from benchmarks.training.jobs import run_job

    found = run_job(Job("setfit", str(encoder_dir), str(data_dir), learning_rate=1e-3, max_steps=30), threads=1)
    assert [evaluation["step"] for evaluation in found["evaluations"]] == [0, 25, 30]
    assert (found["num_steps"], found["texts_per_step"]) == (30, 32)  # pairs of texts, 16 a step
    assert found["final_accuracy"] == found["evaluations"][-1]["accuracy"]
    training_s = [evaluation["training_s"] for evaluation in found["evaluations"]]
    assert training_s[0] > 0 and all(e["wall_s"] > e["training_s"] for e in found["evaluations"])
    assert found["peak_rss_mib"] > 100 and found["seconds"] > max(training_s)
    with pytest.raises(ValueError, match="setfit failed"):
        run_job(Job("setfit", str(encoder_dir), str(data_dir / "nowhere")), threads=1)
