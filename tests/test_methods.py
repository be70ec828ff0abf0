"""Full training, LoRA and QLoRA: all end as one plain classifier."""

import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from intents.batching import PaddingCollator
from intents.classifier import load_classifier
from intents.four_bit import paged_adamw
from intents.layers import linear_layers
from intents.methods import build_trainee, prepare
from intents.predicting import predict_logits
from intents.trainer import score
from tests.training_fixtures import ADAPTERS, FAMILIES, INTENTS, PAD, Trained, model_settings

pytest_plugins = ["tests.training_fixtures"]


@pytest.fixture
def train(families, splits, tmp_path):
    def train_one(method, family="bert", head="mean", **settings):
        return Trained(families[family], splits, tmp_path / "adapter", method, head, **settings)

    return train_one


@pytest.mark.parametrize(
    ("family", "head", "method"),
    [  # every two of them together
        (family, ("mean", "first", "native")[(row + column) % 3], method)
        for row, family in enumerate(FAMILIES)
        for column, method in enumerate(("full", *ADAPTERS))
    ],
)
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


@pytest.mark.parametrize(
    ("family", "method", "head"),
    [  # all but those that overflow in it
        (family, method, head)
        for family in FAMILIES
        for method, head in (("full", "first"), ("qlora", "mean"))
        if family != "deberta" and (family, method) != ("deberta-v2", "qlora")
    ],
)
def test_every_family_learns_in_bf16(train, splits, family, method, head):
    norm = 0.1 if method == "full" else 0.0  # of adversarial training, which is to learn in bf16 as well
    done = train(method, family, head, num_epochs=6, precision="bf16", adversarial_norm=norm)
    assert score(done.shipped, *splits, PAD, "bf16")["accuracy"] > 0.7


def test_a_family_whose_code_knows_fp32_alone_is_not_trained_in_bf16(train):
    with pytest.raises(ValueError, match="train.precision=bf16: deberta models overflow in it; set it to auto or fp32"):
        train("full", "deberta", precision="bf16")


def test_the_checkpoint_opens_without_peft_and_bitsandbytes(train, tmp_path, monkeypatch):
    """That a fresh interpreter can do without them, too, is seen in tests/test_sharing.py."""
    train("qlora").shipped.save_pretrained(tmp_path / "classifier")
    for package in ("peft", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, package, None)
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    assert type(opened).__name__ == "IntentClassifier"


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


def test_qlora_computes_in_fp32_where_4_bits_overflow_in_bf16(families, monkeypatch):
    monkeypatch.setattr("intents.precision.has_bfloat16", lambda: True)
    settings = model_settings("qlora", precision="auto")
    model = build_trainee(families["deberta-v2"], INTENTS, settings).model
    assert {layer.compute_dtype for layer in model.modules() if hasattr(layer, "compute_dtype")} == {torch.float32}
    with pytest.raises(ValueError, match="train.precision=bf16: deberta-v2 models overflow in it"):
        build_trainee(families["deberta-v2"], INTENTS, model_settings("qlora", precision="bf16"))


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


def test_gradient_checkpointing_of_an_encoder_that_cannot_is_refused(splits, tmp_path):
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 32, "embedding_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model("albert", vocab_size=60, num_hidden_layers=1, **sizes)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="train.gradient_checkpointing: albert encoders cannot recompute"):
        Trained(tmp_path, splits, tmp_path / "out", "full", gradient_checkpointing=True)


@pytest.mark.parametrize("method", ["full", *ADAPTERS])
@pytest.mark.parametrize("head", ["mean", "first", "native"])
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_qlora_on_a_gpu_uses_the_paged_optimizer(train, splits):
    weight = torch.nn.Parameter(torch.ones(64, 128, device="cuda"))
    assert "Paged" in type(paged_adamw([{"params": [weight]}])).__name__
    assert score(train("qlora").shipped, *splits, PAD, "fp32")["accuracy"] > 0.7
