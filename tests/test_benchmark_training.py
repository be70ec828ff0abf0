import json
import math
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training import run, startup
from benchmarks.training.flops import EncoderShape, head_parameters, training_flops
from benchmarks.training.jobs import Job
from benchmarks.training.report import chosen, end_to_end, figures, section
from benchmarks.training.sets import DATA_VARIABLE, find_set, sampled
from benchmarks.training.timeline import Timeline, WorkCounter, time_to_accuracy
from intents.batching import TokenizedTexts
from intents.classifier import build_classifier, freeze
from intents.params import read_params
from intents.tables import write_table
from tests.conftest import REPOSITORY
from tests.training_fixtures import INTENTS, model_settings

pytest_plugins = ["tests.training_fixtures"]
SHAPE = EncoderShape(num_layers=2, hidden=32, intermediate=64)


def test_operations_are_those_of_the_formula():
    # One text of 10 tokens, by hand. A layer's matrices: 4 x 32 x 32 + 2 x 32 x 64 = 8,192 parameters.
    product, attention = 2 * 10 * 8192, 2 * 2 * 10 * 10 * 32
    everything = 2 * 3 * (product + attention) + 6 * 3 * 32
    assert training_flops([10], SHAPE, head_parameters(32, 3, "mean")) == everything
    first_inputs = 2 * 10 * 3 * 32 * 32  # gradient of the inputs of query, key and value, which nothing needs
    assert training_flops([10], SHAPE, 96, freeze="embeddings") == everything - first_inputs
    assert training_flops([10], SHAPE, 96, freeze=1) == everything - 2 * (product + attention) - first_inputs
    assert training_flops([10, 10], SHAPE, 96) == 2 * everything


@pytest.mark.parametrize("lowest", ["none", "embeddings", 1])
def test_operations_are_those_that_torch_counts(families, lowest):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0)
    model.set_attn_implementation("eager")
    freeze(model, lowest)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(4, 14)[None], labels=torch.tensor([0])).loss.backward()
    assert training_flops([10], SHAPE, head_parameters(32, 3, "mean"), lowest) == counter.get_total_flops()


def test_an_adapter_spares_the_gradients_of_the_weights_beneath(families):
    pytest.importorskip("peft")
    from intents.methods import prepare

    model = build_classifier(families["bert"], INTENTS, "mean", 10.0)
    model.set_attn_implementation("eager")
    prepare(model, model_settings("lora", freeze="embeddings"), families["bert"])
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(4, 14)[None], labels=torch.tensor([0])).loss.backward()
    adapter = 2 * (4 * 2 * 32 * 4 + 2 * (32 + 64) * 4)  # rank 4 beside every matrix of both layers
    found = training_flops([10], SHAPE, head_parameters(32, 3, "mean"), adapter_parameters=adapter)
    product, attention = 2 * 10 * 8192, 4 * 10 * 10 * 32
    assert found == 2 * (2 * product + 3 * attention) - 2 * 10 * 3 * 32**2 + 6 * 10 * adapter + 6 * 96
    assert found == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_padding_is_counted_while_training_only():
    work, module = WorkCounter(), torch.nn.Linear(1, 1)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    work(module, (), {"attention_mask": mask})
    work(module.eval(), (), {"attention_mask": mask})
    assert (work.texts, work.useful_tokens, work.padded_tokens) == (2, 5, 8)
    assert work.padding_share == 3 / 8


def test_evaluations_and_checkpoints_are_no_training():
    moments = iter([0.0, 100.0, 103.0, 104.0, 106.0, 107.0, 112.0, 113.0, 116.0])
    timeline = Timeline(clock=lambda: next(moments))
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    with timeline.follow():  # from 100
        optimizer.step()  # until 103
        optimizer.step()  # until 104
        timeline.evaluated(0.5)  # until 106
        optimizer.step()  # until 107
        timeline.paused("checkpoint")  # until 112
        optimizer.step()  # until 113
        timeline.evaluated(0.9)  # until 116
    optimizer.step()
    assert timeline.steps_s == [3, 1, 1, 1]
    assert timeline.steady_step_s(warm_up=1) == 1
    found = timeline.as_dict()["evaluations"]
    assert [(e["training_s"], e["wall_s"]) for e in found] == [(4, 6), (6, 16)]
    assert time_to_accuracy(found, 0.5, "training_s") == 4
    assert time_to_accuracy(found, 0.51, "wall_s") == 16
    assert time_to_accuracy(found, 0.95, "wall_s") is None


def training(system, accuracies, **changes):
    evaluations = [
        {"step": 10 * n, "accuracy": accuracy, "training_s": 10.0 * n, "wall_s": 11.0 * n}
        for n, accuracy in enumerate(accuracies, start=1)
    ]
    measured = {
        "job": {"system": system, "learning_rate": None},
        "evaluations": evaluations,
        "pauses_s": [("evaluation", 1.0) for _ in evaluations],
        "steady_step_s": 0.5,
        "num_steps": 100,
        "texts_per_step": 32.0,
        "useful_tokens_per_text": 10.0,
        "padding_share": 0.25,
        "gflop_per_text": 2.0,
        "final_accuracy": accuracies[-1],
        "num_validation": 100,
        "seconds": 64.0,
        "peak_rss_mib": 700.0,
    }
    return measured | changes


def test_figures_of_a_training():
    found = figures(training("pipeline", [0.8, 0.9]), {"fp32": 200.0, "bf16": 400.0}, target=0.89)
    assert found["texts_per_s"] == 64 and found["useful_tokens_per_s"] == 640
    assert found["share_fp32"] == pytest.approx(128 / 200) and found["share_bf16"] == pytest.approx(128 / 400)
    assert found["end_to_end"] == pytest.approx(3200 / 64)
    assert (found["to_target"], found["to_target_wall"], found["to_own"]) == (20, 22, 20)
    assert found["accuracy"] == pytest.approx((0.9, 0.8238, 0.9510), abs=1e-4)  # Clopper-Pearson, 90 of 100


def test_the_notebook_is_extrapolated_to_whole_evaluations():
    measured = training(
        "notebook",
        [0.2],
        texts_per_step=8.0,
        steady_step_s=8.0,
        num_validation=40,
        num_validation_all=400,
        pauses_s=[("evaluation", 16.0), ("checkpoint", 2.0)],
    )
    assert end_to_end(measured) == pytest.approx(80 / (10 * 8.0 + 160 + 2))
    assert figures(measured, {"fp32": 200.0, "bf16": 400.0}, 0.9)["accuracy"] is None  # it was not trained to the end


def test_what_counts_is_the_most_accurate_and_of_setfit_the_soonest():
    rows = [
        {"system": "trainer", "accuracy": (0.8,), "to_target": 5.0},
        {"system": "trainer", "accuracy": (0.9,), "to_target": 50.0},
        {"system": "setfit", "accuracy": (0.9,), "to_target": math.inf},
        {"system": "setfit", "accuracy": (0.8,), "to_target": 7.0},
    ]
    assert chosen(rows) == {"trainer": rows[1], "setfit": rows[3]}


def test_the_report_compares_with_the_target_of_the_pipeline():
    trainings = [
        training("pipeline", [0.8, 0.9]),
        training("trainer", [0.7, 0.89], steady_step_s=2.0),
        training("setfit", [0.5, 0.7]),
    ]
    rates = [{"fp32": 190.0, "bf16": 410.0}, {"fp32": 200.0, "bf16": 400.0}]
    results = {
        "conditions": {"date": "2026-01-01", "commit": "abc", "threads": 2},
        "sets": {"driver": {"rates": rates, "trainings": trainings}},
        "startup_s": [5.0, 6.5],
    }
    text = section(results)
    assert "190 to 200 GFLOP/s in fp32, 400 to 410 GFLOP/s in bf16. Target: 0.8820." in text
    assert "| texts/s against trainer | 4.0 x | 4 x |" in text
    assert "not reached by setfit" in text
    assert "5.0, 6.5 s" in text


def test_absent_public_data_is_skipped_with_a_message(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    message = find_set("banking77")
    assert "banking77 is skipped" in message and DATA_VARIABLE in message and "nowhere" in message


def test_nothing_is_written_where_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["run", "--data", "banking77"])
    monkeypatch.setattr(run, "RESULTS_PATH", tmp_path / "results.md")
    run.main()
    assert "banking77 is skipped" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_learning_rates_of_the_others_are_all_tried():
    options = run.parse(["--learning-rates", "1e-4", "3e-4", "--setfit-steps", "7"])
    rates = {
        system: [job.learning_rate for job in run.jobs_of(system, Path("data"), options)] for system in run.SYSTEMS
    }
    assert rates == {"pipeline": [None], "trainer": [1e-4, 3e-4], "setfit": [2e-5, 1e-4], "notebook": [None]}
    assert {job.max_steps for job in run.jobs_of("setfit", Path("data"), options)} == {7}


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


@pytest.mark.parametrize("system", ["pipeline", "trainer", "notebook"])
def test_every_system_trains_on_the_same_texts(system, data_dir, encoder_dir, workspace):
    from benchmarks.training.worker import train

    workspace("train", num_epochs=2)
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
    head = head_parameters(32, 3, "mean" if system == "pipeline" else "native")
    frozen = "embeddings" if system == "pipeline" else "none"
    assert found["gflop_per_text"] == pytest.approx(training_flops(lengths, SHAPE, head, frozen) / 48 / 1e9)


def test_the_gpu_benchmark_measures_any_device(data_dir, encoder_dir, workspace, tmp_path):
    from benchmarks.training.gpu import COLUMNS, measure, row, write_random_encoder

    workspace("train", num_epochs=1)
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    folder = write_random_encoder(sizes, encoder_dir, tmp_path / "random")
    found = measure(folder, data_dir, read_params()["train"])
    lengths = TokenizedTexts(data_dir / "tokenized/train.parquet").lengths
    flops = training_flops(lengths, EncoderShape(1, 48, 64), head_parameters(48, 3, "mean"), "embeddings")
    assert found["gflop_per_text"] == pytest.approx(flops / 48 / 1e9)
    texts_per_s = found["texts_per_step"] / found["steady_step_s"]
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
    pytest.importorskip("setfit")
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
