"""Full training, LoRA and QLoRA: all end as one plain classifier."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from intents.adapters import load_adapted
from intents.batching import PaddingCollator
from intents.classifier import load_classifier
from intents.four_bit import linear_layers, paged_adamw
from intents.methods import build_trainee, finish, prepare
from intents.predicting import predict_logits
from intents.trainer import score
from intents.training import fine_tune
from tests.training_fixtures import FAMILIES, INTENTS, PAD, model_settings, training_settings

pytest_plugins = ["tests.training_fixtures"]
REPOSITORY = Path(__file__).resolve().parents[1]
ADAPTERS = ("lora", "qlora")


class Trained:
    """A classifier trained by one method: as the trainer left it, and as it ships."""

    def __init__(self, encoder_dir, splits, folder, method, head="mean", **settings):
        self.encoder_dir, self.folder = encoder_dir, folder
        torch.manual_seed(0)
        trainee = build_trainee(encoder_dir, INTENTS, model_settings(method, head=head))
        self.model = trainee.model
        self.before = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.trained = {name for name, value in self.model.named_parameters() if value.requires_grad}
        self.settings = training_settings(method=method, **settings)
        fine_tune(self.model, *splits, PAD, self.settings, lambda values, step: None)
        self.shipped = finish(trainee, encoder_dir, folder)

    def logits(self, model, splits):
        return torch.from_numpy(predict_logits(model, splits[1], PAD, batch_size=16))


@pytest.fixture
def train(families, splits, tmp_path):
    def train_one(method, family="bert", head="mean", **settings):
        return Trained(families[family], splits, tmp_path / "adapter", method, head, **settings)

    return train_one


@pytest.mark.parametrize("method", ["full", *ADAPTERS])
@pytest.mark.parametrize("head", ["mean", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_with_every_head_and_method_and_ships_a_plain_checkpoint(
    train, splits, tmp_path, family, head, method
):
    done = train(method, family, head, num_epochs=6)
    assert score(done.shipped, *splits, PAD, "fp32")["accuracy"] > 0.7
    done.shipped.save_pretrained(tmp_path / "classifier")
    assert {path.name for path in (tmp_path / "classifier").iterdir()} == {"config.json", "model.safetensors"}
    opened = load_classifier(tmp_path / "classifier")
    assert torch.equal(done.logits(opened, splits), done.logits(done.shipped.eval(), splits))
    assert [opened.config.id2label[label] for label in range(3)] == INTENTS
    assert not {name for name in opened.state_dict() if "lora" in name or "modules_to_save" in name}


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("head", ["mean", "native"])
def test_merging_changes_no_logit(train, splits, head, method):
    done = train(method, head=head)
    torch.testing.assert_close(done.logits(done.shipped, splits), done.logits(done.model, splits), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("head", ["mean", "native"])
def test_adapter_and_head_are_trained_and_nothing_else(train, method, head):
    done = train(method, head=head)
    kinds = {"lora_A", "lora_B", "classifier", "pooler"} if head == "native" else {"lora_A", "lora_B", "classifier"}
    assert {kind for kind in kinds for name in done.trained if kind in name} == kinds
    assert all(any(kind in name for kind in kinds) for name in done.trained)
    changed = {name for name, value in done.model.named_parameters() if not torch.equal(value, done.before[name])}
    assert changed == done.trained


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("head", ["mean", "native"])
def test_the_adapter_folder_makes_the_shipped_classifier_of_the_encoder(train, splits, method, head):
    done = train(method, head=head)
    again = load_adapted(done.encoder_dir, done.folder)
    assert torch.equal(done.logits(again, splits), done.logits(done.shipped, splits))
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"adapter.json", "adapter_config.json", "adapter_model.safetensors"}
    shipped = sum(value.numel() for value in done.shipped.parameters())
    assert (done.folder / "adapter_model.safetensors").stat().st_size < shipped * 4


def test_a_native_adapter_opens_with_peft_alone(train, splits):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    done = train("lora", head="native")
    base = AutoModelForSequenceClassification.from_pretrained(done.encoder_dir, num_labels=3)
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):  # peft's own
        opened = PeftModel.from_pretrained(base, done.folder).eval()
    logits = torch.from_numpy(predict_logits(opened, splits[1], PAD, batch_size=16))
    torch.testing.assert_close(logits, done.logits(done.shipped, splits), atol=1e-4, rtol=1e-4)


def test_the_adapter_names_the_encoder_it_belongs_to(families, tmp_path):
    encoder = Path(shutil.copytree(families["bert"], tmp_path / "encoder"))
    (encoder / "manifest.json").write_text(json.dumps({"source": "org/bert", "revision": "0" * 40}))
    finish(build_trainee(encoder, INTENTS, model_settings("lora")), encoder, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/bert", "0" * 40)
    assert config["target_modules"] == sorted(config["target_modules"])


def test_full_training_leaves_a_note_in_place_of_an_adapter(train):
    done = train("full")
    assert done.shipped is done.model
    assert [path.name for path in done.folder.iterdir()] == ["adapter.json"]
    assert json.loads((done.folder / "adapter.json").read_text())["method"] == "full"
    with pytest.raises(ValueError, match="adapter holds no adapter: train.method was full, models/classifier is"):
        load_adapted(done.encoder_dir, done.folder)


def test_the_checkpoint_opens_without_peft_and_bitsandbytes(train, tmp_path):
    train("qlora").shipped.save_pretrained(tmp_path / "classifier")
    code = (
        "import sys; sys.modules['peft'] = sys.modules['bitsandbytes'] = None\n"
        "import intents\n"
        "from transformers import AutoModelForSequenceClassification as Auto\n"
        f"print(type(Auto.from_pretrained({str(tmp_path / 'classifier')!r})).__name__)"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == "IntentClassifier", done.stderr


def test_qlora_holds_the_encoder_in_4_bits_and_the_head_in_full(build, families):
    model = build(head="native")
    linear = linear_layers(model)
    plain = {name: model.get_submodule(name).weight for name in linear}
    prepare(model, model_settings("qlora"), families["bert"])
    for name in linear:
        base = model.get_submodule(name).base_layer
        assert base.weight.dtype == torch.uint8
        assert base.weight.numel() * 2 == plain[name].numel()
        assert (base.weight.quant_state.quant_type, base.weight.quant_state.nested) == ("nf4", True)
        assert base.compute_dtype == torch.float32
    for name in ("bert.pooler", "classifier"):
        assert {value.dtype for value in model.get_submodule(name).parameters()} == {torch.float32}


def test_qlora_computes_in_the_precision_of_training(build, families):
    model = build()
    prepare(model, model_settings("qlora", precision="bf16"), families["bert"])
    name = linear_layers(build())[0]
    assert model.get_submodule(name).base_layer.compute_dtype == torch.bfloat16


def gradients(model, splits):
    batch = PaddingCollator(PAD)([splits[0][index] for index in range(8)])
    model.zero_grad()
    model.train()
    model(**batch).loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_an_evaluation_leaves_qloras_gradients_alone(build, families, splits):
    model = build()
    prepare(model, model_settings("qlora"), families["bert"])
    before = gradients(model, splits)
    predict_logits(model, splits[1], PAD, batch_size=16)
    after = gradients(model, splits)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["full", *ADAPTERS])
@pytest.mark.parametrize("head", ["mean", "native"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(train, splits, head, method):
    plain, recomputed = (train(method, head=head, gradient_checkpointing=chosen, num_epochs=1) for chosen in (0, 1))
    torch.testing.assert_close(plain.logits(plain.shipped, splits), recomputed.logits(recomputed.shipped, splits))
    passes = []
    for done in (plain, recomputed):
        layer = done.model.base_model.encoder.layer[0].attention
        calls = []
        layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        gradients(done.model, splits)
        passes.append(len(calls))
    assert passes == [1, 2]


@pytest.mark.parametrize("method", ADAPTERS)
def test_the_same_seed_gives_the_same_bytes(train, method):
    files = []
    for _ in range(2):
        done = train(method)
        files.append({path.name: path.read_bytes() for path in done.folder.iterdir()})
    assert files[0] == files[1]


def test_chosen_targets_alone_get_an_adapter(build, families):
    model = build()
    prepare(model, model_settings("lora", lora_targets=["query", "value"]), families["bert"])
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in model.named_parameters() if ".lora_" in name}
    assert adapted == {"query", "value"}


def test_rank_and_alpha_are_those_of_the_settings(build, families):
    model = build()
    prepare(model, model_settings("lora", lora_rank=6, lora_alpha=24, lora_dropout=0.25), families["bert"])
    layer = model.get_submodule(linear_layers(build())[0])
    assert (layer.r["default"], layer.scaling["default"], layer.lora_dropout["default"].p) == (6, 4.0, 0.25)


def test_an_unknown_target_is_named_with_those_there_are(build, families):
    with pytest.raises(
        ValueError,
        match=r"train.lora_targets: this encoder has no linear layer 'quer'; it has: dense, key, query, value",
    ):
        prepare(build(), model_settings("lora", lora_targets=["quer"]), families["bert"])


@pytest.mark.parametrize(("method", "package"), [("lora", "peft"), ("qlora", "bitsandbytes")])
def test_a_missing_package_gives_the_command_that_installs_it(monkeypatch, build, families, method, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"need {package}, which is not installed: pip install -e '.\[lora\]'"):
        prepare(build(), model_settings(method), families["bert"])


def test_an_adapter_for_another_encoder_is_refused(train, families):
    done = train("lora")
    with pytest.raises(ValueError, match="is for another encoder than that in .*roberta: '.*bert', revision None"):
        load_adapted(families["roberta"], done.folder)


def test_a_folder_without_an_adapter_is_named(tmp_path, families):
    with pytest.raises(ValueError, match="holds no adapter .*run `dvc repro train`"):
        load_adapted(families["bert"], tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_qlora_on_a_gpu_uses_the_paged_optimizer(train, splits):
    weight = torch.nn.Parameter(torch.ones(64, 128, device="cuda"))
    assert "Paged" in type(paged_adamw([{"params": [weight]}])).__name__
    assert score(train("qlora").shipped, *splits, PAD, "fp32")["accuracy"] > 0.7
