import pytest
import torch
from torch import nn

from intents import trainer
from intents.graphed import NarrowWeights, can_record
from intents.methods import build_trainee
from intents.normalising import narrow_norms
from intents.training import fine_tune
from tests.training_fixtures import INTENTS, PAD, model_settings, training_settings

pytest_plugins = ["tests.training_fixtures"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@needs_gpu
@pytest.mark.filterwarnings("ignore:inner dimension")  # bitsandbytes' fast kernel wants wider layers
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"adversarial_norm": 0.4, "contrastive_weight": 0.5, "ema_decay": 0.9},
        {"gradient_accumulation": 2},
        {"precision": "bf16", "max_grad_norm": 0.0},
    ],
)
@pytest.mark.parametrize("method", ["full", "qlora"])
def test_recorded_passes_train_what_passes_do(families, splits, monkeypatch, settings, method):
    trained = []
    for records in (True, False):
        torch.manual_seed(0)
        model = build_trainee(families["bert"], INTENTS, model_settings(method, head="first", dropout=0.1)).model
        if not records:
            monkeypatch.setattr(trainer, "GraphedPasses", lambda _model, passes, narrow: passes)
        seen = fine_tune(model, *splits, PAD, training_settings(method=method, **settings), lambda *_: None)
        trained.append([(point["train_loss"], point["log_loss"]) for point in seen.curves])
        monkeypatch.undo()
    narrow = settings.get("precision") == "bf16" or method == "qlora"
    torch.testing.assert_close(*map(torch.tensor, trained), rtol=2e-2 if narrow else 1e-3, atol=1e-3)


@needs_gpu
def test_other_families_and_processors_are_not_recorded(families):
    model = build_trainee(families["bert"], INTENTS, model_settings("full")).model
    assert not can_record(model)  # on the CPU
    assert can_record(model.cuda())
    assert not can_record(build_trainee(families["modernbert"], INTENTS, model_settings("full")).model.cuda())


def test_narrow_weights_pass_their_gradients_on(families):
    model = build_trainee(families["bert"], INTENTS, model_settings("full", freeze=1)).model.train()
    inputs = {"input_ids": torch.tensor([[2, 5, 20, 7, 3], [2, 9, 40, 3, 3]]), "labels": torch.tensor([0, 2])}

    def passes():
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        return loss.detach()

    def gradients():
        found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert {gradient.dtype for gradient in found} == {torch.float32}
        return torch.cat([gradient.flatten() for gradient in found])

    weights = [parameter.detach().clone() for parameter in model.parameters()]
    with narrow_norms(model, "bf16"):
        loss = passes()
        expected = gradients().clone()
        model.zero_grad()
        narrow = NarrowWeights(model)
        for times in (1, 2):  # the second time there are gradients to add to
            with narrow.in_place():
                assert {layer.weight.dtype for layer in model.modules() if type(layer) is nn.Linear} == {torch.bfloat16}
                torch.testing.assert_close(passes(), loss)
            torch.testing.assert_close(gradients(), times * expected, rtol=0, atol=0.01 * expected.abs().max().item())
        with torch.no_grad():
            model.classifier.weight.zero_()
        with narrow.in_place():  # the weights as they are now
            assert not model.classifier.weight.any()
        model.classifier.weight.data = weights[-2]
    assert all(map(torch.equal, model.parameters(), weights))
