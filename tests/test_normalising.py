import pytest
import torch
from torch import nn

from intents.classifier import build_classifier
from intents.first_token import BERT_LIKE
from intents.layers import set_dropout
from intents.normalising import narrow_norms
from tests.training_fixtures import FAMILIES, INTENTS

pytest_plugins = ["tests.training_fixtures"]
IDS = torch.tensor([[2, *range(5, 21), 3], [2, *range(5, 17), 3, 0, 0, 0, 0]])


def learn(model):
    """Return logits and all gradients of a step under autocast."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=IDS, attention_mask=(IDS != 0).long()).logits.float()
        nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def states(model):
    """Return the last hidden states under autocast."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return model.encoder(input_ids=IDS, attention_mask=(IDS != 0).long()).last_hidden_state


@pytest.mark.parametrize("head", ["mean", "native"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "deberta"])  # which knows fp32 alone
def test_narrow_norms_find_and_learn_much_the_same(families, family, head):
    torch.manual_seed(0)
    model = build_classifier(families[family], INTENTS, head, 10.0).train()
    set_dropout(model, 0.0)
    logits, gradient = learn(model)
    with narrow_norms(model, "bf16"):
        narrow_logits, narrow_gradient = learn(model)
    torch.testing.assert_close(narrow_logits, logits, atol=0.1, rtol=0.05)
    assert nn.functional.cosine_similarity(narrow_gradient, gradient, dim=0) > 0.99
    assert torch.equal(narrow_logits, logits) == (family not in BERT_LIKE)
    again, _ = learn(model)
    torch.testing.assert_close(again, logits)


def test_they_are_for_training_alone(families):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0).eval()
    usual = states(model)
    assert usual.dtype == torch.float32
    with narrow_norms(model, "bf16"):
        assert torch.equal(states(model), usual)
        assert states(model.train()).dtype == torch.bfloat16
    assert states(model).dtype == torch.float32


def test_fp32_keeps_the_norms_it_had(families):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0).train()
    with narrow_norms(model, "fp32"):
        assert states(model).dtype == torch.float32
