import math

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

from intents.callbacks import BestState


def follow(best, evaluations):
    """Show `best` evaluations, (accuracy, log-loss), of a model whose weight counts them; return where it stopped."""
    model, control = nn.Linear(1, 1, bias=False), TrainerControl()
    for number, (accuracy, log_loss) in enumerate(evaluations):
        with torch.no_grad():
            model.weight.fill_(number)
        metrics = {"eval_accuracy": accuracy, "eval_macro_f1": 0.5, "eval_log_loss": log_loss}
        best.on_evaluate(None, TrainerState(), control, metrics=metrics, model=model)
        if control.should_training_stop:
            break
    best.restore(model)
    return int(model.weight), number


@pytest.mark.parametrize(
    ("metric", "kept"),
    [("accuracy", 2), ("macro_f1", 3), ("log_loss", 3)],  # all are alike in macro-F1
)
def test_the_best_state_is_kept_and_of_equals_the_surer_one(metric, kept):
    evaluations = [(0.8, 0.6), (0.9, 0.5), (0.9, 0.4), (0.7, 0.3), (0.9, 0.45)]
    assert follow(BestState(metric, patience=5), evaluations) == (kept, 4)


def test_training_stops_when_nothing_is_better_for_so_long():
    evaluations = [(0.8, 0.6), (0.8, 0.5), (0.8, 0.5), (0.8, 0.7), (0.9, 0.1)]
    assert follow(BestState("accuracy", patience=2), evaluations) == (1, 3)


def test_weights_that_have_become_nan_end_training_at_once_and_are_not_kept():
    assert follow(BestState("accuracy", patience=5), [(0.8, 0.6), (0.0, math.inf), (0.9, 0.1)]) == (0, 1)
