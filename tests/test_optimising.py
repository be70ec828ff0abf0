"""Settings of the optimizer, each seen in what is trained."""

import math

import numpy as np
import pytest
import torch

from intents.batching import BucketBatchSampler, SplitBatchSampler
from intents.methods import prepare
from intents.optimising import balanced_weights, parameter_groups
from intents.predicting import predict_logits
from intents.trainer import IntentTrainer, score
from intents.training import fine_tune
from tests.training_fixtures import PAD, model_settings, training_settings, write_split

pytest_plugins = ["tests.training_fixtures"]


def trained_logits(build, splits, family="bert", **settings):
    model = build(family)
    fine_tune(model, *splits, PAD, training_settings(**settings), lambda values, step: None)
    return predict_logits(model, splits[1], PAD, batch_size=16)


def rates_seen(build, splits, tmp_path, **settings):
    """Return the learning rate of the head after each optimizer step, relative to its peak."""
    from transformers import TrainerCallback

    class Listener(TrainerCallback):
        rates: list[float] = []

        def on_step_end(self, args, state, control, lr_scheduler=None, **_):
            self.rates.append(max(lr_scheduler.get_last_lr()))

    listener = Listener()
    listener.rates = []
    model = build()
    trainer = IntentTrainer(model, *splits, PAD, training_settings(head_learning_rate=1.0, **settings), str(tmp_path))
    trainer.add_callback(listener)
    trainer.train()
    return listener.rates


def test_accumulating_gradients_gives_what_one_large_batch_gives(build, tmp_path):
    splits = [write_split(tmp_path / f"{seed}.parquet", 100, seed) for seed in (0, 1)]  # the last batch is smaller
    whole, parts = (trained_logits(build, splits, batch_size=16, gradient_accumulation=parts) for parts in (1, 2))
    np.testing.assert_allclose(parts, whole, atol=2e-3)
    eights = trained_logits(build, splits, batch_size=8)
    assert np.abs(eights - whole).max() > 0.05  # else the test would see nothing


@pytest.mark.parametrize("num_texts", [64, 65, 66, 67, 79, 3])
@pytest.mark.parametrize("parts", [2, 3, 16])
def test_a_split_pass_holds_the_same_steps(num_texts, parts):
    lengths = np.random.default_rng(0).integers(3, 30, num_texts)
    whole = BucketBatchSampler(lengths, 16, seed=0)
    split = SplitBatchSampler(BucketBatchSampler(lengths, 16, seed=0), parts)
    for epoch in (0, 1):
        whole.set_epoch(epoch)
        split.set_epoch(epoch)
        batches = list(split)
        assert len(batches) == len(split)
        assert max(map(len, batches)) <= math.ceil(16 / parts)
        steps = [sum(batches[i : i + parts], []) for i in range(0, len(batches), parts)]
        assert list(map(sorted, steps)) == list(map(sorted, whole))


def test_balanced_weights_count_each_intent_alike():
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 0.0, 10 / 3])
    assert weights[labels].mean().item() == pytest.approx(1.0)


def test_balanced_class_weights_help_the_rare_intent(build, tmp_path):
    splits = [write_split(tmp_path / f"{seed}.parquet", 120, seed, shares=(0.85, 0.1, 0.05)) for seed in (0, 1)]
    plain, balanced = (
        trained_logits(build, splits, class_weights=chosen, num_epochs=1) for chosen in ("none", "balanced")
    )
    rare = splits[1].labels == 2
    probability = [torch.from_numpy(logits).softmax(-1)[rare, 2].mean().item() for logits in (plain, balanced)]
    assert probability[1] > probability[0] + 0.05


@pytest.mark.parametrize("family", ["bert", "electra", "modernbert"])
def test_layer_decay_slows_the_lower_layers(build, family):
    model = build(family)
    settings = {"learning_rate": 1.0, "head_learning_rate": 3.0, "weight_decay": 0.0}
    groups = parameter_groups(model, [], layer_decay=0.5, **settings)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    found = {name: rate_of[id(parameter)] for name, parameter in model.named_parameters()}
    layers = "layers" if family == "modernbert" else "encoder.layer"
    for prefix, rate in (
        ("encoder.embeddings", 0.25),  # and embeddings_project
        (f"encoder.{layers}.0.", 0.5),
        (f"encoder.{layers}.1.", 1.0),
        ("classifier.", 3.0),
    ):
        assert {found[name] for name in found if name.startswith(prefix)} == {rate}, prefix
    assert len(found) == sum(len(group["params"]) for group in groups)


def test_without_layer_decay_all_of_the_encoder_learns_alike(build):
    settings = {"learning_rate": 1.0, "head_learning_rate": 3.0, "weight_decay": 0.1}
    groups = parameter_groups(build(), ["classifier.weight"], layer_decay=1.0, **settings)
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(1.0, 0.0), (3.0, 0.1), (3.0, 0.0)}


def test_layer_decay_reaches_the_adapters(build, families):
    model = build()
    prepare(model, model_settings("lora"), families["bert"])
    settings = {"learning_rate": 1.0, "head_learning_rate": 3.0, "weight_decay": 0.0}
    assert [group["lr"] for group in parameter_groups(model, [], layer_decay=0.5, **settings)] == [0.5, 1.0, 3.0]


def test_layer_decay_of_an_encoder_with_shared_layers_is_an_error():
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(vocab_size=9, embedding_size=8, hidden_size=8, num_attention_heads=2, intermediate_size=8)
    model = AlbertForSequenceClassification(config)
    with pytest.raises(ValueError, match="train.layer_decay: the layers of albert encoders cannot be told apart"):
        parameter_groups(model, [], 1.0, 1.0, layer_decay=0.5, weight_decay=0.0)


def test_schedulers_end_where_they_should(build, splits, tmp_path):
    common = {"num_epochs": 3, "warmup_share": 0.2}
    rates = {
        name: rates_seen(build, splits, tmp_path, scheduler=name, **common)
        for name in ("linear", "cosine", "constant_with_warmup", "inverse_sqrt")
    }
    assert {len(seen) for seen in rates.values()} == {21}
    assert all(seen[0] < 0.5 < max(seen) == pytest.approx(1.0) for seen in rates.values())
    assert rates["linear"][-1] == rates["cosine"][-1] == 0.0
    assert rates["constant_with_warmup"][-1] == 1.0
    assert 0.3 < rates["inverse_sqrt"][-1] < 0.6
    assert rates["cosine"][10] > rates["linear"][10]


def test_the_best_state_is_put_back_with_an_adapter_too(build, families, splits):
    model = build()
    prepare(model, model_settings("lora"), families["bert"])
    settings = training_settings(method="lora", learning_rate=1.0, num_epochs=6, scheduler="constant_with_warmup")
    result = fine_tune(model, *splits, PAD, settings, lambda values, step: None)
    assert score(model, *splits, PAD, "fp32")["log_loss"] == pytest.approx(result.best["log_loss"], rel=1e-5)
    assert result.curves[-1]["log_loss"] > result.best["log_loss"]
