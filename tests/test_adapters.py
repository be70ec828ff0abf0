"""The adapters of LoRA and QLoRA: what is trained, what the folder holds, and whom it fits."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from intents.adapters import load_adapted, target_layers
from intents.classifier import build_classifier
from intents.layers import linear_layers
from intents.methods import build_trainee, finish, prepare
from intents.predicting import predict_logits
from tests.training_fixtures import ADAPTERS, INTENTS, PAD, Trained, model_settings

pytest_plugins = ["tests.training_fixtures"]


@pytest.fixture(scope="module", params=[(method, head) for method in ADAPTERS for head in ("mean", "first", "native")])
def done(request, families, splits, tmp_path_factory):
    """A classifier trained with each adapter and head. Never change it."""
    return Trained(families["bert"], splits, tmp_path_factory.mktemp("trained") / "adapter", *request.param)


def test_merging_changes_no_logit(done, splits):
    torch.testing.assert_close(done.logits(done.shipped, splits), done.logits(done.model, splits), atol=1e-4, rtol=1e-4)


def test_adapter_and_head_are_trained_and_nothing_else(done):
    kinds = (
        {"lora_A", "lora_B", "classifier", "pooler"} if done.head == "native" else {"lora_A", "lora_B", "classifier"}
    )
    assert {kind for kind in kinds for name in done.trained if kind in name} == kinds
    assert all(any(kind in name for kind in kinds) for name in done.trained)
    changed = {name for name, value in done.model.named_parameters() if not torch.equal(value, done.before[name])}
    assert changed == done.trained


@pytest.mark.parametrize("method", ADAPTERS)
def test_layers_that_stay_as_pretrained_get_no_adapter(families, splits, tmp_path, method):
    done = Trained(families["bert"], splits, tmp_path / "adapter", method, "mean", freeze=1)
    assert {name.split(".layer.")[1][0] for name in done.trained if "lora_" in name} == {"1"}
    torch.testing.assert_close(done.logits(done.shipped, splits), done.logits(done.model, splits), atol=1e-4, rtol=1e-4)


def test_the_adapter_folder_makes_the_shipped_classifier_of_the_encoder(done, splits):
    again = load_adapted(done.encoder_dir, done.folder)
    assert torch.equal(done.logits(again, splits), done.logits(done.shipped, splits))
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"adapter.json", "adapter_config.json", "adapter_model.safetensors"}
    shipped = sum(value.numel() for value in done.shipped.parameters())
    assert (done.folder / "adapter_model.safetensors").stat().st_size < shipped * 4


@pytest.mark.parametrize("done", [("lora", "native")], indirect=True)
def test_a_native_adapter_opens_with_peft_alone(done, splits):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

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


def test_full_training_leaves_a_note_in_place_of_an_adapter(families, splits, tmp_path):
    done = Trained(families["bert"], splits, tmp_path / "adapter", "full")
    assert done.shipped is done.model
    assert [path.name for path in done.folder.iterdir()] == ["adapter.json"]
    assert json.loads((done.folder / "adapter.json").read_text())["method"] == "full"
    with pytest.raises(ValueError, match="adapter holds no adapter: train.method was full, models/classifier is"):
        load_adapted(done.encoder_dir, done.folder)


@pytest.mark.parametrize("done", [("lora", "mean"), ("qlora", "native")], indirect=True)
def test_the_same_seed_gives_the_same_bytes(done, splits, tmp_path):
    again = Trained(done.encoder_dir, splits, tmp_path / "adapter", done.settings.method, done.head)
    first, second = ({path.name: path.read_bytes() for path in one.folder.iterdir()} for one in (done, again))
    assert first == second


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


def test_a_package_that_is_there_and_lacks_something_says_what(monkeypatch, tmp_path, build, families):
    (tmp_path / "peft.py").write_text("import no_such_module\n")
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        prepare(build(), model_settings("lora"), families["bert"])


def test_what_widens_frozen_embeddings_gets_no_adapter(families):
    model = build_classifier(families["electra"], INTENTS, "mean", 10.0)
    projection = "encoder.embeddings_project"
    assert projection in target_layers(model, "all", "none")
    for frozen in ("embeddings", 1):
        assert projection not in target_layers(model, "all", frozen)


@pytest.mark.parametrize(("method", "package"), [("lora", "peft"), ("qlora", "bitsandbytes")])
def test_a_missing_package_gives_the_command_that_installs_it(monkeypatch, build, families, method, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=rf"need {package}, which is not installed: pip install -c constraints.txt -e '.\[lora\]'"
    ):
        prepare(build(), model_settings(method), families["bert"])


@pytest.mark.parametrize("done", [("lora", "mean")], indirect=True)
def test_an_adapter_for_another_encoder_is_refused(done, families):
    with pytest.raises(ValueError, match="is for another encoder than that in .*roberta: '.*bert', revision None"):
        load_adapted(families["roberta"], done.folder)


def test_a_folder_without_an_adapter_is_named(tmp_path, families):
    with pytest.raises(ValueError, match="holds no adapter .*run `dvc repro train`"):
        load_adapted(families["bert"], tmp_path)


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("freeze", ["none", "embeddings"])
def test_an_encoder_without_linear_layers_is_refused_by_the_method(tmp_path, method, freeze):
    sizes = {"vocab_size": 60, "embedding_size": 32, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    config = AutoConfig.for_model("squeezebert", **sizes, num_attention_heads=2)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"train.method: squeezebert encoders have no linear layers .*; use full"):
        build_trainee(tmp_path, INTENTS, model_settings(method, freeze=freeze))


def test_a_pooler_that_is_a_single_layer_is_trained_and_not_put_into_4_bits(tmp_path):
    sizes = {"vocab_size": 60, "embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    AutoModel.from_config(AutoConfig.for_model("albert", **sizes, num_attention_heads=2)).save_pretrained(tmp_path)
    trainee = build_trainee(tmp_path, INTENTS, model_settings("qlora", head="native"))
    pooler = trainee.model.get_submodule("albert.pooler")
    assert {value.dtype for value in pooler.parameters()} == {torch.float32}
    assert any(value.requires_grad for value in pooler.parameters())
