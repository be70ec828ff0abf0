"""The training benchmark: what it counts, and what its report makes of it."""

import math
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training import run
from benchmarks.training.flops import EncoderShape, training_flops
from benchmarks.training.report import chosen, end_to_end, figures, section
from benchmarks.training.sets import DATA_VARIABLE, find_set
from benchmarks.training.timeline import Timeline, WorkCounter, time_to_accuracy
from intents.classifier import build_classifier
from intents.layers import freeze
from tests.training_fixtures import INTENTS, model_settings

pytest_plugins = ["tests.training_fixtures"]
SHAPE = EncoderShape(num_layers=2, hidden=32, intermediate=64)


def test_operations_are_those_of_the_formula():
    # One text of 10 tokens, by hand. A layer's matrices: 4 x 32 x 32 + 2 x 32 x 64 = 8,192 parameters.
    product, attention = 2 * 10 * 8192, 2 * 2 * 10 * 10 * 32
    everything = 2 * 3 * (product + attention) + 6 * 3 * 32
    assert training_flops([10], SHAPE, "mean", 3) == everything
    first_inputs = 2 * 10 * 3 * 32 * 32  # gradient of the inputs of query, key and value, which nothing needs
    assert training_flops([10], SHAPE, "mean", 3, freeze="embeddings") == everything - first_inputs
    assert training_flops([10], SHAPE, "mean", 3, freeze=1) == everything - 2 * (product + attention) - first_inputs
    assert training_flops([10, 10], SHAPE, "mean", 3) == 2 * everything


@pytest.mark.parametrize("head", ["mean", "first"])
@pytest.mark.parametrize("lowest", ["none", "embeddings", 1])
def test_operations_are_those_that_torch_counts(families, lowest, head):
    model = build_classifier(families["bert"], INTENTS, head, 10.0)
    model.set_attn_implementation("eager")
    freeze(model, lowest)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(4, 14)[None], labels=torch.tensor([0])).loss.backward()
    assert training_flops([10], SHAPE, head, 3, lowest) == counter.get_total_flops()


def test_an_adapter_spares_the_gradients_of_the_weights_beneath(families):
    pytest.importorskip("peft", reason="no peft: pip install -c constraints.txt -e '.[lora]'")
    from intents.methods import prepare

    model = build_classifier(families["bert"], INTENTS, "mean", 10.0)
    model.set_attn_implementation("eager")
    prepare(model, model_settings("lora", freeze="embeddings"), families["bert"])
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(4, 14)[None], labels=torch.tensor([0])).loss.backward()
    adapter = 2 * (4 * 2 * 32 * 4 + 2 * (32 + 64) * 4)  # rank 4 beside every matrix of both layers
    found = training_flops([10], SHAPE, "mean", 3, adapter_parameters=adapter)
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
    assert timeline.steady_step_s(warm_up=1) == timeline.last_steps_s(3) == 1
    assert timeline.last_steps_s(4) == 1.5
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
    assert "| pipeline | texts/s against trainer, evaluations and checkpoints aside | 4.0 x | 4 x |" in text
    assert "not reached by setfit" in text
    assert "5.0, 6.5 s" in text


def test_a_machine_without_bf16_and_a_run_without_a_target_are_reported_as_far_as_they_go():
    measured = {"rates": [{"fp32": 100.0}], "trainings": [training("quick", [0.9]), training("setfit", [0.8])]}
    text = section({"conditions": {"date": "2026-01-01", "commit": "abc"}, "sets": {"driver": measured}})
    assert "100 to 100 GFLOP/s in fp32." in text and "Target" not in text.partition("products, before")[2]
    assert "share of the bf16 rate |" not in text.partition("| system | figure")[2]
    assert "to target against setfit" not in text


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
    own = {"pipeline": [None], "quick": [None], "large_batches": [None]}
    assert rates == own | {"trainer": [1e-4, 3e-4], "setfit": [2e-5, 1e-4], "notebook": [None]}
    assert {job.max_steps for job in run.jobs_of("setfit", Path("data"), options)} == {7}
