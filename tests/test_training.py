"""Every setting of training is heard, and the state that is kept is the one that the settings ask for."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from intents.classifier import build_classifier
from intents.predicting import predict_logits
from intents.trainer import IntentTrainer
from intents.training import fine_tune
from intents.training_settings import TrainingSettings
from tests.training_fixtures import INTENTS, PAD, training_settings

pytest_plugins = ["tests.training_fixtures"]
USUAL = {"num_epochs": 1, "learning_rate": 1e-3, "contrastive_weight": 0.5, "ema_decay": 0.9}
CHANGES = {
    "num_epochs": 2,
    "min_steps": 14,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "head_learning_rate": 2e-2,
    "layer_decay": 0.5,
    "scheduler": "constant_with_warmup",
    "warmup_share": 0.5,
    "weight_decay": 10.0,
    "class_weights": "balanced",
    "label_smoothing": 0.3,
    "contrastive_weight": 2.0,
    "contrastive_temperature": 1.0,
    "ema_decay": 0.0,
    "max_grad_norm": 0.01,
    "adversarial_norm": 0.3,
    "seed": 1,
}
# Heard in tests of their own; the first changes what is trained, the next two nothing but memory.
ELSEWHERE = {"method", "gradient_accumulation", "gradient_checkpointing", "precision", "metric_for_best", "patience"}


@pytest.fixture(scope="module")
def usual(families, splits):
    return trained(families, splits)


def trained(families, splits, **changes):
    torch.manual_seed(0)
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0)
    fine_tune(model, *splits, PAD, training_settings(**(USUAL | changes)), lambda *_: None)
    return predict_logits(model, splits[1], PAD, batch_size=16)


def test_every_setting_has_a_test():
    assert {field.name for field in fields(TrainingSettings)} == CHANGES.keys() | ELSEWHERE


def test_the_same_settings_train_the_same(families, splits, usual):
    assert np.array_equal(trained(families, splits), usual)


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_is_heard(families, splits, usual, name):
    assert np.abs(trained(families, splits, **{name: CHANGES[name]}) - usual).max() > 1e-5


@pytest.mark.parametrize(("metric", "epoch"), [("macro_f1", 1), ("accuracy", 2), ("log_loss", 3)])
def test_the_state_that_is_best_by_the_metric_is_kept_and_patience_ends_training(
    build, splits, monkeypatch, metric, epoch
):
    scores = [(0.5, 0.9, 0.7), (0.9, 0.5, 0.8), (0.6, 0.6, 0.1), *[(0.1, 0.1, 0.9)] * 9]
    found = (dict(zip(("accuracy", "macro_f1", "log_loss"), one, strict=True)) for one in scores)
    monkeypatch.setattr("intents.trainer.score", lambda *_: next(found))
    settings = training_settings(metric_for_best=metric, patience=3, num_epochs=10)
    result = fine_tune(build(), *splits, PAD, settings, lambda *_: None)
    assert (result.best["epoch"], len(result.curves)) == (epoch, epoch + 3)


def test_the_encoder_and_the_head_learn_at_their_own_rates_and_matrices_alone_decay(build, splits, tmp_path):
    settings = training_settings(learning_rate=1.0, head_learning_rate=3.0, layer_decay=0.5, weight_decay=0.1)
    model = build()
    groups = IntentTrainer(model, *splits, PAD, settings, str(tmp_path)).create_optimizer().param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    names = {name: found[id(p)] for name, p in model.named_parameters()}
    assert names["classifier.weight"] == (3.0, 0.1) and names["classifier.bias"] == (3.0, 0.0)
    assert names["encoder.encoder.layer.1.output.dense.weight"] == (1.0, 0.1)
    assert names["encoder.encoder.layer.0.output.dense.weight"] == (0.5, 0.1)
    assert names["encoder.encoder.layer.1.output.LayerNorm.weight"] == (1.0, 0.0)
