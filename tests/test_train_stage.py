import csv
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from intents.classifier import load_classifier
from intents.params import load_params
from intents.tables import with_facts, write_table
from intents.tokenizing import SCHEMA
from stages import train
from tests.conftest import REPOSITORY

# The tracker and the devices belong to tests of their own; here the stage runs whole, in an empty folder.
INTENTS = ["close", "open"]


@pytest.fixture
def inputs(workspace, tiny_encoder):
    """The stage's inputs, tiny; returns the function that changes settings."""
    workspace("tracking", report_to="none")
    workspace("train", num_epochs=2, precision="fp32", batch_size=8)
    shutil.copytree(tiny_encoder, "models/encoder")
    schema = with_facts(SCHEMA, intents=INTENTS, max_length=16)
    for split, num_texts in (("train", 24), ("validation", 10), ("unlabelled", 0)):
        ids = [[2, 5 + i % 2, 6 + i % 7, 3] for i in range(num_texts)]
        columns = {"input_ids": ids, "label": [i % 2 for i in range(num_texts)]}
        write_table(Path(f"data/tokenized/{split}.parquet"), columns, schema)
    return workspace


def metrics():
    return json.loads(Path("metrics/train.json").read_text())


def test_a_checkpoint_is_of_these_settings_data_code_and_packages_alone(inputs, tmp_path, monkeypatch):
    def folder(training="", **settings):
        params = load_params("train", train.TrainParams)
        found = train._checkpoints(params.model_copy(update=settings), 60, tmp_path / "checkpoints", training)
        found.release()
        return found.folder

    code = Path(shutil.copytree(REPOSITORY / "intents", tmp_path / "intents"))
    monkeypatch.setattr("intents.__file__", str(code / "__init__.py"))
    expected = folder()
    assert folder() == expected
    found = {expected, folder("labelled rows alone"), folder(learning_rate=1e-4)}
    files = [*Path("models/encoder").glob("*"), *Path("data/tokenized").glob("*.parquet"), code / "callbacks.py"]
    for path in files:
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        found.add(folder())
        path.write_bytes(before)
    monkeypatch.setattr("intents.checkpoints.version", lambda package: "another")
    found.add(folder())
    assert len(found) == 3 + len(files) + 1 and folder() != expected


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("baselines", {"max_rows": 0}, "baselines.max_rows: input should be greater than or equal to 1, got 0"),
        ("calibrate", {"max_error_rate": 2}, "calibrate.max_error_rate: input should be less than 1, got 2"),
        ("calibrate", {"reject_intent": "ajar"}, "calibrate.reject_intent: the data has no intent 'ajar'; it has:"),
        ("calibrate", {"stricter": {"ajar": 0.01}}, "calibrate.stricter: 'ajar' is no intent that a threshold guards"),
        ("evaluate", {"num_mistake": 5}, "evaluate.num_mistake: unknown setting; evaluate has:"),
        ("evaluate", {"behaviour_pairs": "params.yaml"}, "evaluate.behaviour_pairs: params.yaml must have the columns"),
        (
            "evaluate",
            {"behaviour_pairs": "data/pears.csv"},
            "evaluate.behaviour_pairs: data/pears.csv is no file;",
        ),
        ("card", {"title": ""}, "card.title: string should have at least 1 character"),
        ("export", {"quantisation": "int4"}, "export.quantisation: input should be 'auto', 'static'"),
    ],
)
def test_a_later_stage_refuses_its_settings_before_anything_is_trained(inputs, section, settings, message):
    inputs(section, **settings)
    with pytest.raises(ValueError) as error:
        train.main()
    assert message in str(error.value)
    assert not Path("models/trained").exists()


def test_the_run_is_named_after_the_experiment(inputs, monkeypatch):
    names = []

    class Noticed(Exception):
        pass

    def start(report_to, project, name, config, folder):
        names.append(name)
        raise Noticed

    monkeypatch.setattr(train, "start_tracker", start)
    for name in ("many-intents", None):
        monkeypatch.setenv("DVC_EXP_NAME", name) if name else monkeypatch.delenv("DVC_EXP_NAME")
        with pytest.raises(Noticed):
            train.main()
    assert names == ["many-intents", None]


def test_full_training_counts_all_parameters_and_merges_nothing(inputs):
    inputs("train", freeze="none")
    train.main()
    counts = metrics()["parameters"]
    assert counts["trainable"] == counts["all"]
    assert "merging" not in metrics()
    assert [path.name for path in Path("models/adapter").iterdir()] == ["adapter.json"]


def test_few_texts_are_passed_over_until_there_are_steps_enough(inputs, capsys):
    inputs("train", min_steps=50, patience=2)  # 24 texts are 3 steps a pass, and there are 2 epochs
    train.main()
    assert "each epoch passes over them 9 times, for 50 steps (train.min_steps)" in capsys.readouterr().out
    assert metrics()["passes_per_epoch"] == 9
    curves = csv.DictReader(Path("metrics/plots/training.csv").read_text().splitlines())
    assert [int(point["step"]) for point in curves] == [27, 54]


def test_enough_texts_are_passed_over_once_an_epoch(inputs, capsys):
    inputs("train", min_steps=6)
    train.main()
    assert "passes over them" not in capsys.readouterr().out
    assert metrics()["passes_per_epoch"] == 1


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_metrics_of_an_adapter_describe_the_classifier_that_ships(inputs, method):
    inputs("train", method=method, lora_rank=2)
    train.main()
    shipped = load_classifier(Path("models/trained"))
    found = metrics()
    assert found["parameters"]["all"] == sum(parameter.numel() for parameter in shipped.parameters())
    assert found["parameters"]["trainable"] < found["parameters"]["all"] / 2
    assert found["merging"]["log_loss_change"] == pytest.approx(0, abs=1e-3)

    from intents.batching import TokenizedTexts
    from intents.trainer import score

    splits = (TokenizedTexts(Path(f"data/tokenized/{split}.parquet")) for split in ("train", "validation"))
    scores = score(shipped, *splits, 0, "fp32")
    assert found["validation"] == {name: round(value, 4) for name, value in scores.items()}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "lora", "freeze": 2}, "train.freeze=2 leaves no layer of the encoder to adapt"),
        (
            {"method": "full", "freeze": 3},
            "train.freeze: the encoder has 2 layers, got 3; set a lower number, embeddings or none",
        ),
        ({"gradient_accumulation": 9}, "train.gradient_accumulation: must be at most train.batch_size=8, .*, got 9"),
        ({"scheduler": "constant"}, "train.scheduler: input should be 'linear', 'cosine', .*, got 'constant'"),
        ({"class_weights": "even"}, "train.class_weights: input should be 'none' or 'balanced', got 'even'"),
        ({"method": "adapter"}, "train.method: input should be 'full', 'lora' or 'qlora', got 'adapter'"),
        ({"layer_decay": 0}, "train.layer_decay: input should be greater than 0, got 0"),
        ({"method": "lora", "lora_targets": []}, "train.lora_targets"),
        ({"method": "lora", "lora_targets": ["keys"]}, "train.lora_targets: this encoder has no linear layer 'keys'"),
    ],
)
def test_a_wrong_or_senseless_setting_is_refused(inputs, settings, message):
    inputs("train", **settings)
    with pytest.raises(ValueError, match=message):
        train.main()
    assert not Path("models/trained").exists()


def test_validation_without_any_trained_intent_is_named(inputs):
    schema = with_facts(SCHEMA, intents=INTENTS, max_length=16)
    write_table(Path("data/tokenized/train.parquet"), {"input_ids": [[2, 5, 3]] * 8, "label": [0] * 8}, schema)
    write_table(Path("data/tokenized/validation.parquet"), {"input_ids": [[2, 6, 3]] * 2, "label": [1] * 2}, schema)
    with pytest.raises(ValueError, match="no validation row has an intent that the training rows have"):
        train.main()
    assert not Path("models/trained").exists()


def test_a_training_that_diverges_says_which_settings_to_lower(inputs):
    inputs("train", head_learning_rate=1e38)
    with pytest.raises(ValueError, match="training diverged: .* lower train.learning_rate or train.head_learning_rate"):
        train.main()
    assert not Path("models/trained").exists()


def test_a_schedule_that_falls_by_the_length_of_the_warmup_needs_one(inputs):
    inputs("train", scheduler="inverse_sqrt", warmup_share=0.0)
    with pytest.raises(ValueError, match="train.warmup_share: must be above 0 with train.scheduler=inverse_sqrt"):
        train.main()


def test_the_seed_decides_the_heads_first_weights(inputs):
    heads = []
    for seed in (0, 0, 1):  # at such rates weights stay as they are made
        inputs("train", num_epochs=1, seed=seed, learning_rate=1e-12, head_learning_rate=1e-12)
        train.main()
        heads.append(load_file("models/trained/model.safetensors")["classifier.weight"])
    assert (heads[0] - heads[1]).abs().max() < 1e-6 < 1e-3 < (heads[0] - heads[2]).abs().max()


def test_a_rank_without_a_number_of_processes_is_named(inputs, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="LOCAL_RANK is set, WORLD_SIZE is not: unset it"):
        train.main()
