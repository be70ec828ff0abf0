from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from intents import trainer
from intents.adversarial import MovedEmbeddings
from intents.batching import PaddingCollator
from intents.classifier import build_classifier
from intents.layers import freeze, set_dropout
from intents.methods import build_trainee
from intents.packing import PackingCollator, pack, packed
from intents.training import fine_tune
from tests.training_fixtures import INTENTS, PAD, model_settings, training_settings

pytest_plugins = ["tests.training_fixtures"]
HEADS = ("first", "mean", "native")


def batches(splits, num_texts=12):
    """Return the same texts padded and packed, without their labels, and these."""
    texts = [splits[0][index] for index in range(num_texts)]
    collators = PaddingCollator(PAD), PackingCollator(PAD, splits[0].lengths, num_texts)
    padded, packed_texts = (collate(texts) for collate in collators)
    return padded, packed_texts, padded.pop("labels"), packed_texts.pop("labels")


@pytest.mark.parametrize("seed", range(5))
def test_rows_hold_every_token_once_and_no_text_lies_across_two(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 65, 200) if seed else np.array([64, 1, 63, 64, 32, 32])
    starts = pack(lengths, 64)
    assert (starts // 64 == (starts + lengths - 1) // 64).all()
    taken = np.concatenate([np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)])
    assert len(set(taken.tolist())) == lengths.sum()
    assert taken.max() // 64 + 1 <= 1.05 * lengths.sum() / 64 + 1


def test_a_batch_says_where_its_tokens_are_and_counts_what_is_computed(splits):
    collate = PackingCollator(PAD, splits[0].lengths, 40)
    texts = [splits[0][index] for index in range(40)]
    batch = collate(texts)
    longest = batch["input_ids"].shape[1]
    assert longest == splits[0].lengths.max()
    places = batch["places"].flatten()
    within = places[places < 40 * longest]
    found = batch["input_ids"].flatten()[within].tolist()
    assert sorted(found) == sorted(np.concatenate([text["input_ids"] for text in texts]).tolist())
    assert batch["attention_mask"].flatten()[within].all()
    assert (collate.useful_tokens, collate.padded_tokens) == (len(found), len(places))


@pytest.mark.parametrize("frozen", ["none", "embeddings"])
@pytest.mark.parametrize("head", HEADS)
def test_packed_texts_have_the_logits_and_gradients_of_padded_ones(families, splits, head, frozen):
    model = build_classifier(families["bert"], INTENTS, head, 10.0).train()
    freeze(model, frozen)
    *both, labels, _ = batches(splits)
    seen = []
    for batch in both:
        model.zero_grad()
        with packed(model) if "places" in batch else nullcontext():
            moved = MovedEmbeddings(model, 0.4, batch["attention_mask"], batch.get("places"))
            with moved.found():
                logits = model(**batch).logits
                nn.functional.cross_entropy(logits, labels).backward()
            with moved.applied():
                further = model(**batch).logits
                nn.functional.cross_entropy(further, labels).backward()
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        seen.append([logits, further, torch.cat(gradients)])
    for padded, of_packed in zip(*seen, strict=True):
        torch.testing.assert_close(of_packed, padded, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[0][0], seen[0][1], atol=1e-3)


def test_without_places_a_packed_model_does_what_it_always_does(families, splits):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0).eval()
    padded = batches(splits)[0]
    expected = model(**padded).logits
    with packed(model):
        assert torch.equal(model(**padded).logits, expected)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("full", {"adversarial_norm": 0.4, "contrastive_weight": 0.5}),
        ("full", {"gradient_accumulation": 3}),
        ("lora", {}),
        ("qlora", {"adversarial_norm": 0.4}),
    ],
)
def test_training_on_packed_texts_is_training_on_padded_ones(families, splits, monkeypatch, method, settings):
    monkeypatch.setattr(trainer, "POOL", 1)  # the same texts in a step
    monkeypatch.setattr(trainer, "GraphedPasses", lambda _model, passes, narrow: passes)  # there is no GPU
    trained = []
    for packs in (False, True):
        monkeypatch.setattr(trainer, "can_record", lambda _model, packs=packs: packs)
        torch.manual_seed(0)
        model = build_trainee(families["bert"], INTENTS, model_settings(method, head="first")).model
        set_dropout(model, 0.0)
        seen = fine_tune(
            model, *splits, PAD, training_settings(method=method, num_epochs=1, **settings), lambda *_: None
        )
        trained.append([(point["train_loss"], point["log_loss"]) for point in seen.curves])
        assert "parameters" not in vars(model)
        assert "forward" not in vars(model.base_model)
    torch.testing.assert_close(*map(torch.tensor, trained), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["full", "qlora"])
def test_recomputed_activations_are_packed_and_not_recorded(families, splits, monkeypatch, method):
    monkeypatch.setattr(trainer, "can_record", lambda _model: True)
    curves = []
    for again in (False, True):
        monkeypatch.setattr(trainer, "GraphedPasses", lambda _m, passes, narrow, again=again: _not_again(passes, again))
        torch.manual_seed(0)
        model = build_trainee(families["bert"], INTENTS, model_settings(method)).model
        settings = training_settings(
            method=method, num_epochs=2, gradient_checkpointing=again, gradient_accumulation=2, adversarial_norm=0.4
        )
        result = fine_tune(model, *splits, PAD, settings, lambda *_: None)
        curves.append(([list(point.values()) for point in result.curves], result.padding_share))
    torch.testing.assert_close(*map(torch.tensor, (points for points, _ in curves)), rtol=1e-4, atol=1e-4)
    assert curves[0][1] == curves[1][1]


def _not_again(passes, again):
    assert not again, "recorded"
    return passes
