import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from intents.adversarial import MovedEmbeddings
from intents.batching import PaddingCollator
from intents.classifier import build_classifier
from intents.layers import embeddings_of, freeze
from intents.trainer import score
from tests.training_fixtures import FAMILIES, INTENTS, PAD, Trained

pytest_plugins = ["tests.training_fixtures"]
IDS = torch.tensor([[2, 5, 20, 7, 3], [2, 9, 40, 3, 0]])
MASK = (IDS != 0).long()
LABELS = torch.tensor([0, 2])


def loss_of(model):
    logits = model(input_ids=IDS, attention_mask=MASK).logits
    return nn.functional.cross_entropy(logits, LABELS)


def embedded(model):
    """Return what the embeddings give, where a hook has moved it."""
    seen = []
    handle = embeddings_of(model).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        model(input_ids=IDS, attention_mask=MASK)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_move_by_that_share_of_their_tokens_length_to_where_the_loss_grows(families, family):
    model = build_classifier(families[family], INTENTS, "mean", 10.0).eval()
    freeze(model, "embeddings")
    usual, loss = embedded(model), loss_of(model)
    expected = torch.stack([0.01 * usual[0].norm(dim=1).mean(), 0.01 * usual[1, :-1].norm(dim=1).mean()])
    moved = MovedEmbeddings(model, 0.01, MASK)
    with moved.found():
        loss_of(model).backward()
    assert torch.equal(embedded(model), usual)
    with moved.applied():
        step = embedded(model) - usual
        grown = loss_of(model)
    torch.testing.assert_close(step.flatten(1).norm(dim=1), expected, atol=1e-4, rtol=1e-3)
    assert not step[1, -1].any()  # padding
    assert grown > loss
    with torch.no_grad():
        random = torch.randn(100, *step.shape)
        random = random * (expected / random.flatten(2).norm(dim=2))[..., None, None]
        for elsewhere in random:
            handle = embeddings_of(model).register_forward_hook(
                lambda _module, _inputs, output, by=elsewhere: output + by
            )
            assert loss_of(model) < grown
            handle.remove()
    torch.testing.assert_close(loss_of(model), loss)


# XLNet's batches have as many texts as tokens, Longformer pads to its window, I-BERT gives a scale as well.
@pytest.mark.parametrize(("family", "shape"), [("xlnet", (4, 4)), ("longformer", (2, 6)), ("ibert", (2, 6))])
def test_embeddings_that_are_no_vector_per_text_and_token_are_refused_by_name(tmp_path, family, shape):
    xlnet = {"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 32}
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    sizes = xlnet if family == "xlnet" else sizes | {"max_position_embeddings": 64, "attention_window": 4}
    AutoModel.from_config(AutoConfig.for_model(family, vocab_size=60, pad_token_id=0, **sizes)).save_pretrained(
        tmp_path
    )
    model = build_classifier(tmp_path, INTENTS, "mean", 10.0)
    ids = torch.full(shape, 5)
    message = f"train.adversarial_norm: the embeddings of {family} encoders .*; set it to 0"
    with pytest.raises(ValueError, match=message), MovedEmbeddings(model, 0.1, torch.ones_like(ids)).found():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_an_encoder_that_does_without_its_embeddings_is_refused_by_name(tmp_path):
    sizes = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64}
    layers = {f"{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    AutoModel.from_config(AutoConfig.for_model("bart", vocab_size=60, **sizes, **layers)).save_pretrained(tmp_path)
    model = build_classifier(tmp_path, INTENTS, "mean", 10.0)
    with (
        pytest.raises(ValueError, match="train.adversarial_norm: the embeddings of bart encoders cannot be moved"),
        MovedEmbeddings(model, 0.1, MASK).found(),
    ):
        loss_of(model).backward()


def test_a_text_without_tokens_spoils_nothing(families):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0).eval()
    mask = torch.stack([MASK[0], torch.zeros_like(MASK[1])])
    moved = MovedEmbeddings(model, 0.5, mask)
    with moved.found():
        model(input_ids=IDS, attention_mask=mask).logits.square().sum().backward()
    with moved.applied():
        assert embedded(model).isfinite().all()


def test_a_text_that_counts_for_nothing_stays(families):
    model = build_classifier(families["bert"], INTENTS, "mean", 10.0).eval()
    usual = embedded(model)
    moved = MovedEmbeddings(model, 0.5, MASK)
    with moved.found():
        model(input_ids=IDS, attention_mask=MASK).logits[0].square().sum().backward()
    with moved.applied():
        found = embedded(model)
    assert torch.equal(found[1], usual[1])
    assert not torch.equal(found[0], usual[0])


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation": 2}, {"gradient_checkpointing": True}])
def test_no_way_to_go_learns_what_training_without_it_does(families, splits, tmp_path, settings):
    trained = []
    for norm in (0.0, 1e-6):
        done = Trained(families["bert"], splits, tmp_path / f"{norm}", "full", adversarial_norm=norm, **settings)
        trained.append(done.logits(done.model, splits))
    torch.testing.assert_close(trained[1], trained[0], atol=1e-3, rtol=1e-3)


# All weights of the other families learn adversarially in tests/test_methods.py, in bf16.
@pytest.mark.parametrize(("family", "method"), [("deberta", "full"), ("bert", "qlora"), ("modernbert", "qlora")])
def test_a_family_without_bf16_and_one_of_4_bits_learn_adversarially(families, splits, tmp_path, family, method):
    settings = {"num_epochs": 6, "precision": "auto", "adversarial_norm": 0.1}
    done = Trained(families[family], splits, tmp_path / "adapter", method, freeze="embeddings", **settings)
    assert score(done.shipped, *splits, PAD, "auto")["accuracy"] > 0.7


def test_what_is_learnt_stands_moved_texts_better(families, splits, tmp_path):
    validation = splits[1]
    batch = PaddingCollator(PAD)([validation[i] for i in range(len(validation))])
    grown = []
    for norm in (0.0, 0.1):
        done = Trained(families["bert"], splits, tmp_path / f"{norm}", "full", num_epochs=6, adversarial_norm=norm)
        moved = MovedEmbeddings(done.model.eval(), 0.4, batch["attention_mask"])
        with moved.found():
            done.model(**batch).loss.backward()
        with moved.applied(), torch.no_grad():
            grown.append(done.model(**batch).loss.item())
    assert grown[1] < grown[0] * 0.7
