import pytest
import torch
from transformers import AutoConfig, AutoModel

from intents.attention import PLAIN, trainable_attention
from intents.classifier import build_classifier
from intents.layers import freeze
from tests.training_fixtures import FAMILIES, INTENTS

pytest_plugins = ["tests.training_fixtures"]
IDS = torch.tensor([[2, 5, 20, 3], [2, 9, 3, 0]])
LONG_IDS = torch.tensor([[2, *range(5, 21), 3], [2, *range(5, 17), 3, 0, 0, 0, 0]])  # rows longer than a register


@pytest.mark.parametrize("ids", [IDS, LONG_IDS])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_attention_of_training_finds_the_same_and_goes_again(families, family, ids):
    model = build_classifier(families[family], INTENTS, "mean", 10.0).eval()
    usual = model.encoder.config._attn_implementation
    with torch.no_grad():
        mask = (ids != 0).long()
        expected = model(input_ids=ids, attention_mask=mask).logits
        with trainable_attention(model, "bf16"):
            assert model.encoder.config._attn_implementation == (PLAIN if usual == "sdpa" else usual)
            torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, expected, atol=1e-5, rtol=1e-4)
    assert model.encoder.config._attn_implementation == usual


@pytest.mark.parametrize("ids", [IDS, LONG_IDS])
def test_the_attention_of_training_learns_the_same(families, ids):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0).eval()
    gradients = []
    for precision in ("fp32", "bf16"):
        with trainable_attention(model, precision):
            model(input_ids=ids, attention_mask=(ids != 0).long()).logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.encoder.encoder.parameters() if p.grad is not None])
        model.zero_grad()
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-3)


def test_fp32_keeps_the_attention_it_had(families):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0)
    with trainable_attention(model, "fp32"):
        assert model.encoder.config._attn_implementation == "sdpa"


def test_the_attention_of_training_drops_weights(families):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0).train()
    for layer in model.encoder.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    with trainable_attention(model, "bf16"):
        assert not torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)


@pytest.mark.parametrize("family", ["eurobert", "nomic_bert"])
def test_rotary_encoders_train_in_bf16_with_all_that_is_frozen_by_default(family, tmp_path):
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(family, **sizes, intermediate_size=64, pad_token_id=0)
    if family == "eurobert":
        config.num_key_value_heads = 2  # a key for two queries
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = build_classifier(tmp_path, INTENTS, "mean", 10.0)
    freeze(model, "embeddings")
    expected = model.eval()(input_ids=LONG_IDS, attention_mask=(LONG_IDS != 0).long()).logits
    with trainable_attention(model, "bf16"), torch.autocast("cpu", torch.bfloat16):
        found = model(input_ids=LONG_IDS, attention_mask=(LONG_IDS != 0).long()).logits
        found.float().square().sum().backward()
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.05)
    assert not any(p.requires_grad for p in model.base_model.get_input_embeddings().parameters())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("head", ["mean", "first"])
def test_padding_that_sees_nothing_but_padding_is_a_number_in_bf16(tmp_path, head):
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = AutoConfig.for_model("modernbert", **sizes, intermediate_size=64, pad_token_id=0, local_attention=8)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = build_classifier(tmp_path, INTENTS, head, 10.0).eval()
    ids = torch.zeros(2, 30, dtype=torch.long)
    ids[0], ids[1, :3] = torch.arange(4, 34), torch.tensor([2, 9, 3])
    expected = model(input_ids=ids[1:, :3], attention_mask=torch.ones(1, 3, dtype=torch.long)).logits
    with trainable_attention(model, "bf16"), torch.autocast("cpu", torch.bfloat16):
        found = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
        found.float().square().sum().backward()
    torch.testing.assert_close(found[1:].float(), expected, atol=0.1, rtol=0.05)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_an_encoder_that_knows_but_its_own_attention_keeps_it(tmp_path):
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 40, "pad_token_id": 0}
    AutoModel.from_config(AutoConfig.for_model("mpnet", **sizes)).save_pretrained(tmp_path)
    model = build_classifier(tmp_path, INTENTS, "mean", 10.0).eval()
    expected = model(input_ids=IDS).logits
    with trainable_attention(model, "bf16"):
        assert torch.equal(model(input_ids=IDS).logits, expected)
