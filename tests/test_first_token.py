"""The head that reads the first token spares the rest of the last layer, and nothing else changes."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from intents.attention import trainable_attention
from intents.classifier import build_classifier
from intents.first_token import BERT_LIKE
from tests.training_fixtures import FAMILIES, INTENTS

pytest_plugins = ["tests.training_fixtures"]
IDS = torch.tensor([[2, 5, 20, 7, 3], [2, 9, 3, 0, 0]])
INPUTS = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}


def first_states(model):
    return model.encoder(**INPUTS).last_hidden_state[:, 0]


@pytest.fixture(params=FAMILIES)
def models(request, families):
    """A classifier of the first token, and its encoder as transformers has it, of each family."""
    model = build_classifier(families[request.param], INTENTS, "first", 10.0).eval()
    return model, AutoModel.from_pretrained(families[request.param]).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager", "training"])
def test_the_first_state_and_what_it_teaches_are_those_of_the_whole_layer(models, attention):
    model, whole = models
    if attention == "eager":
        model.set_attn_implementation("eager")
    with trainable_attention(model, "bf16" if attention == "training" else "fp32"):
        found = first_states(model)
        found.square().sum().backward()
    expected = whole(**INPUTS).last_hidden_state[:, 0]
    expected.square().sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    wanted = {name: parameter.grad for name, parameter in whole.named_parameters() if parameter.grad is not None}
    learnt = {name: parameter.grad for name, parameter in model.encoder.named_parameters()}
    assert wanted.keys() <= learnt.keys()
    for name in wanted:
        torch.testing.assert_close(learnt[name], wanted[name], atol=1e-4, rtol=1e-3)


def test_layers_like_those_of_bert_are_spared_the_other_tokens(models):
    model, whole = models
    operations = []
    for encoder in (model.encoder, whole):
        with FlopCounterMode(display=False) as counter:
            encoder(**INPUTS)
        operations.append(counter.get_total_flops())
    shortened = model.encoder(**INPUTS).last_hidden_state.shape[1] == 1
    assert shortened == (model.encoder.config.model_type in BERT_LIKE)
    assert (operations[0] < 0.8 * operations[1]) == shortened


def test_the_short_layer_drops_what_the_setting_says(families):
    model = build_classifier(families["bert"], INTENTS, "first", 10.0).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert torch.equal(first_states(model), first_states(model))
    model.encoder.encoder.layer[-1].attention.self.dropout.p = 0.5
    assert not torch.equal(first_states(model), first_states(model))


def test_a_copy_has_weights_of_its_own(families):
    model = build_classifier(families["bert"], INTENTS, "first", 10.0).eval()
    before = first_states(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.encoder.encoder.layer[-1].parameters():
            parameter.zero_()
    torch.testing.assert_close(first_states(model), before)
    assert not torch.equal(first_states(other), before)


def test_gradient_checkpointing_teaches_the_same(families):
    model = build_classifier(families["bert"], INTENTS, "first", 10.0).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(**INPUTS).logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_decoder_whose_first_token_sees_itself_alone_is_refused(tmp_path):
    sizes = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40}
    AutoModel.from_config(AutoConfig.for_model("gpt2", **sizes)).save_pretrained(tmp_path)
    build_classifier(tmp_path, INTENTS, "mean", 10.0)
    with pytest.raises(ValueError, match="train.head=first: in gpt2 models the first token does not see those"):
        build_classifier(tmp_path, INTENTS, "first", 10.0)
