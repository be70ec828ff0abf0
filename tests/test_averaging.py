import pytest
from torch import nn
from transformers import TrainerControl, TrainerState

from intents.averaging import AveragedWeights


def run(model, decay, weights):
    """Give the model those weights one after the other, a step each; return the callback."""
    averaged, state = AveragedWeights(decay), TrainerState()
    averaged.on_train_begin(None, state, TrainerControl(), model=model)
    for step, weight in enumerate(weights, 1):
        model.weight.data.fill_(weight)
        state.global_step = step
        averaged.on_step_end(None, state, TrainerControl())
    return averaged


@pytest.fixture
def model():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    return model


def test_the_average_follows_the_weights_by_its_decay(model):
    averaged = run(model, 0.1, [1.0, 5.0])  # after the first step 0.9; then 0.1 * 0.9 + 0.9 * 5
    with averaged.in_place():
        assert model.weight.item() == pytest.approx(4.59)
    assert model.weight.item() == 5.0


def test_the_first_weights_are_soon_forgotten(model):
    averaged = run(model, 0.999, [1.0])
    with averaged.in_place():
        assert model.weight.item() == pytest.approx(1 - 2 / 11)


def test_the_weights_come_back_after_an_error(model):
    averaged = run(model, 0.5, [1.0, 2.0])
    with pytest.raises(KeyboardInterrupt), averaged.in_place():
        raise KeyboardInterrupt
    assert model.weight.item() == 2.0


def test_decay_0_keeps_the_weights(model):
    averaged = run(model, 0.0, [1.0, 2.0])
    with averaged.in_place():
        assert model.weight.item() == 2.0


def test_frozen_weights_have_no_average_and_stay():
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    frozen = model.bias.item()
    averaged = run(model, 0.5, [1.0, 2.0])
    model.bias.data.fill_(frozen)
    with averaged.in_place():
        assert model.bias.item() == frozen
        assert model.weight.item() != 2.0
