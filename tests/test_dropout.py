import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from intents.classifier import build_classifier
from intents.dropout import QuickDropout, drop, quick_dropout
from intents.layers import set_dropout
from tests.training_fixtures import FAMILIES, INTENTS

pytest_plugins = ["tests.training_fixtures"]
IDS = torch.tensor([[2, 5, 20, 3], [2, 9, 3, 0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_drops_that_share_and_keeps_the_mean(share, dtype):
    torch.manual_seed(0)
    dropped = drop(torch.ones(300, 1001, dtype=dtype), share)
    assert dropped.dtype == dtype
    assert dropped.eq(0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert dropped.float().mean().item() == pytest.approx(1, abs=0.03)
    assert dropped.unique().numel() == 2


@pytest.mark.parametrize(("share", "rounded"), [(0.0001, 1 / 256), (0.9999, 255 / 256)])
def test_a_share_near_none_or_all_drops_some_and_keeps_some(share, rounded):
    torch.manual_seed(0)
    dropped = drop(torch.ones(500_000), share)
    assert dropped.eq(0).float().mean().item() == pytest.approx(rounded, abs=0.001)
    assert dropped.max().item() == pytest.approx(1 / (1 - rounded))


def test_what_is_dropped_is_independent_of_its_neighbours():
    torch.manual_seed(0)
    gone = drop(torch.ones(400_003), 0.5).eq(0)
    for distance in range(1, 17):  # eight activations share a random number
        assert (gone[:-distance] & gone[distance:]).float().mean().item() == pytest.approx(0.25, abs=0.005)


def test_the_gradient_passes_where_the_activation_did():
    activations = torch.randn(50, 7, requires_grad=True)
    dropped = drop(activations, 0.25)
    dropped.sum().backward()
    torch.testing.assert_close(activations.grad, dropped.detach().ne(0) / 0.75)


def test_the_same_random_state_drops_the_same():
    torch.manual_seed(3)
    first, second = (drop(torch.ones(999), 0.3) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(drop(torch.ones(999), 0.3), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_at_zero_or_in_evaluation():
    activations = torch.randn(9, 9)
    assert torch.equal(QuickDropout(0.0).train()(activations), activations)
    assert torch.equal(QuickDropout(0.5).eval()(activations), activations)
    assert torch.equal(QuickDropout(1.0).train()(activations), torch.zeros(9, 9))


NUMBERS_ALONE = ("xlm", "flaubert", "bart", "esm", "longformer")


@pytest.mark.parametrize("family", NUMBERS_ALONE)
def test_a_share_that_an_encoder_keeps_as_a_number_is_set_too(tmp_path, family):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    xlm = {"emb_dim": 16, "n_layers": 1, "n_heads": 2}
    layers = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    bart = {"d_model": 16, **layers, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    chosen = {"bart": bart, "xlm": xlm, "flaubert": xlm}.get(family, sizes)
    longformer = {"attention_window": 4} if family == "longformer" else {}
    config = AutoConfig.for_model(
        family, vocab_size=60, pad_token_id=0, max_position_embeddings=40, **chosen, **longformer
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = build_classifier(tmp_path, INTENTS, "mean", 10.0).train()
    logits = []
    for share in (0.5, 0.0):
        set_dropout(model, share)
        with torch.no_grad():
            logits += [model(input_ids=IDS, attention_mask=IDS.ne(0).long()).logits for _ in range(2)]
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    torch.testing.assert_close(logits[2], logits[3])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_drops_quickly_while_it_lasts(families, family):
    model = build_classifier(families[family], INTENTS, "mean", 10.0).train()
    set_dropout(model, 0.5)
    with quick_dropout(model):
        assert not any(type(module) is nn.Dropout for module in model.modules())
        assert not torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
        model.eval()
        assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert not any(type(module) is QuickDropout for module in model.modules())
    assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
