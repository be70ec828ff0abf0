"""Encoders are asked what they do before anything is trained on them."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from intents.classifier import build_classifier
from intents.layers import set_dropout
from tests.tiny_encoder import write_bert
from tests.training_fixtures import INTENTS

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def write(folder, family, **sizes):
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, **(SIZES | sizes))).save_pretrained(folder)


def write_xlnet(folder):
    write(folder, "xlnet", d_model=32, n_layer=2, n_head=2, d_inner=64)


@pytest.mark.parametrize("head", ["first", "mean", "native"])
def test_an_encoder_that_mixes_padding_in_is_refused(tmp_path, head):
    write(tmp_path, "fnet", max_position_embeddings=40, tpu_short_seq_length=40)
    with pytest.raises(ValueError, match=f"a fnet model answers with train.head={head} depends on the padding"):
        build_classifier(tmp_path, INTENTS, head, 10.0)


def test_a_head_that_reads_the_last_place_is_refused_and_another_is_not(tmp_path):
    write_xlnet(tmp_path)
    with pytest.raises(ValueError, match="xlnet model answers with train.head=native .* set it to mean"):
        build_classifier(tmp_path, INTENTS, "native", 10.0)
    assert build_classifier(tmp_path, INTENTS, "mean", 10.0).training


def test_a_translator_is_refused_with_a_reason(tmp_path):
    write(tmp_path, "t5", d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    with pytest.raises(ValueError, match="encoder.name: t5 models do not classify a text by its tokens alone"):
        build_classifier(tmp_path, INTENTS, "mean", 10.0)


def test_a_vocabulary_padded_with_rows_alike_is_none_the_worse(tmp_path):
    write_bert(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        encoder.get_input_embeddings().weight[-6:] = 0
    encoder.save_pretrained(tmp_path)
    build_classifier(tmp_path, INTENTS, "first", 10.0)
    with torch.no_grad():
        encoder.get_input_embeddings().weight[:] = 0
    encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the embeddings of all its tokens are alike"):
        build_classifier(tmp_path, INTENTS, "first", 10.0)


@pytest.mark.parametrize("head", ["first", "mean", "native"])
def test_dropout_reaches_attention_that_is_made_at_the_first_text(tmp_path, head):
    write(tmp_path, "big_bird", max_position_embeddings=40, num_random_blocks=1, block_size=4)
    model = build_classifier(tmp_path, INTENTS, head, 10.0).train()
    set_dropout(model, 0.0)
    ids_bt = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(input_ids=ids_bt).logits, model(input_ids=ids_bt).logits)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
