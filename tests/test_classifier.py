import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from intents.classifier import build_classifier, load_classifier
from intents.layers import freeze, set_dropout

pytest_plugins = ["tests.training_fixtures"]
INTENTS = ["open", "close", "none"]


@pytest.fixture(params=["mean", "first", "native"])
def classifier(request, tiny_encoder):
    torch.manual_seed(0)
    return build_classifier(tiny_encoder, INTENTS, request.param, feature_scale=10.0).eval()


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_saved_classifier_answers_as_before_and_knows_its_intents(classifier, tiny_encoder, tmp_path):
    texts = AutoTokenizer.from_pretrained(tiny_encoder)(["open it", "close"], padding=True, return_tensors="pt")
    classifier.save_pretrained(tmp_path / "saved")
    loaded = load_classifier(tmp_path / "saved")
    assert torch.equal(loaded(**texts).logits, classifier(**texts).logits)
    assert [loaded.config.id2label[label] for label in range(3)] == INTENTS


def test_padding_changes_no_answer(classifier):
    ids = torch.tensor([[2, 7, 9, 3]])
    padded = torch.tensor([[2, 7, 9, 3, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    alone = classifier(input_ids=ids).logits
    torch.testing.assert_close(classifier(input_ids=padded, attention_mask=mask).logits, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", ["mean", "first"])
def test_features_have_the_length_of_the_setting(tiny_encoder, head):
    classifier = build_classifier(tiny_encoder, INTENTS, head, feature_scale=4.0)
    features = classifier.pool(torch.randn(5, 6, 32), torch.ones(5, 6))
    torch.testing.assert_close(features.norm(dim=-1), torch.full((5,), 4.0))


def test_frozen_parts_are_not_trained(classifier):
    everything = trained(classifier)
    freeze(classifier, "none")
    assert trained(classifier) == everything
    freeze(classifier, "embeddings")
    assert {name for name in everything if ".embeddings." in name} == everything - trained(classifier)
    freeze(classifier, 1)
    lost = everything - trained(classifier)
    assert any(".layer.0." in name for name in lost)
    assert not any(".layer.1." in name or name.startswith("classifier") for name in lost)


def test_more_frozen_layers_than_there_are_is_an_error(classifier):
    with pytest.raises(ValueError, match="train.freeze: the encoder has 2 layers, got 3"):
        freeze(classifier, 3)


@pytest.mark.parametrize("head", ["mean", "native"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"prefix": "foo."}, r"encoder.name: 37 of the encoder's tensors .* are not there; take an encoder whose"),
        ({"num_hidden_layers": 3}, r"encoder.name: 16 of .*weights of (bert.)?encoder.layer.2.\S+ are not there"),
        ({"intermediate_size": 48}, r"encoder.name: 6 of .*intermediate.dense.bias are \(64,\), not \(48,\)"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused(tiny_encoder, tmp_path, head, spoil, message):
    weights = load_file(tiny_encoder / "model.safetensors")
    prefix = spoil.get("prefix", "")
    save_file({prefix + name: value for name, value in weights.items()}, tmp_path / "model.safetensors")
    config = json.loads((tiny_encoder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | spoil))
    with pytest.raises(ValueError, match=message):
        build_classifier(tmp_path, INTENTS, head, 10.0)


def test_what_makes_the_embeddings_wider_is_frozen_with_them(families):
    model = build_classifier(families["electra"], INTENTS, "mean", 10.0)
    freeze(model, "embeddings")
    lost = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {"encoder.embeddings_project.weight", "encoder.embeddings.word_embeddings.weight"} <= lost
    assert not any(".layer." in name for name in lost)


def test_a_folder_without_a_classifier_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no classifier.*run `dvc repro`"):
        load_classifier(tmp_path)


def test_an_encoder_or_a_damaged_file_is_no_classifier(classifier, tiny_encoder, tmp_path):
    with pytest.raises(ValueError, match="holds no trained classifier: its weights lack classifier"):
        load_classifier(tiny_encoder)
    classifier.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="the weights are damaged"):
        load_classifier(tmp_path)


def test_dropout_is_that_of_the_setting(classifier):
    ids = torch.tensor([[2, 7, 9, 3]])
    classifier.train()
    set_dropout(classifier, 0.0)
    assert torch.equal(classifier(input_ids=ids).logits, classifier(input_ids=ids).logits)
    set_dropout(classifier, 0.5)
    assert not torch.equal(classifier(input_ids=ids).logits, classifier(input_ids=ids).logits)


def test_dropout_of_albert_is_that_of_the_setting(tmp_path):
    sizes = {
        "vocab_size": 60,
        "embedding_size": 16,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    AutoModel.from_config(AutoConfig.for_model("albert", **sizes)).save_pretrained(tmp_path)
    model = build_classifier(tmp_path, INTENTS, "mean", feature_scale=10.0)
    set_dropout(model, 0.25)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}


def test_a_native_head_for_other_labels_starts_anew(tmp_path, tiny_encoder):
    published = build_classifier(tiny_encoder, ["good", "bad"], "native", feature_scale=10.0)
    published.save_pretrained(tmp_path)
    classifier = build_classifier(tmp_path, INTENTS, "native", feature_scale=10.0).eval()
    assert classifier(input_ids=torch.tensor([[2, 7, 9, 3]])).logits.shape == (1, 3)
    kept = published.base_model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in classifier.base_model.state_dict().items())


def test_layers_that_are_spread_over_several_lists_cannot_be_frozen_one_by_one(tmp_path):
    sizes = {"vocab_size": 60, "emb_dim": 32, "n_layers": 2, "n_heads": 2, "pad_index": 0}
    AutoModel.from_config(AutoConfig.for_model("flaubert", **sizes)).save_pretrained(tmp_path)
    model = build_classifier(tmp_path, INTENTS, "mean", feature_scale=10.0)
    message = "train.freeze: the layers of flaubert encoders cannot be told apart; set it to embeddings or none"
    with pytest.raises(ValueError, match=message):
        freeze(model, 1)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_a_native_head_for_as_many_other_labels_starts_anew(tmp_path, families, family):
    torch.manual_seed(0)
    build_classifier(families[family], ["x", "y"], "native", 10.0).save_pretrained(tmp_path)
    torch.manual_seed(1)
    old, new = load_classifier(tmp_path), build_classifier(tmp_path, ["billing", "refund"], "native", 10.0)
    changed = {name for name, value in new.named_parameters() if not torch.equal(value, old.get_parameter(name))}
    assert changed == {"classifier.out_proj.weight" if family == "roberta" else "classifier.weight"}
