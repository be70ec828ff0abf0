import numpy as np
import pytest
import torch

from intents.batching import TokenizedTexts
from intents.classifier import build_classifier
from intents.layers import freeze
from intents.tables import write_table
from intents.tokenizing import SCHEMA
from intents.vocabulary import only_used_rows

INTENTS = ["open", "close"]
IDS = [[2, 7, 9, 3], [2, 11, 3]]
USED = [2, 3, 7, 9, 11]


@pytest.fixture
def texts(tmp_path):
    write_table(tmp_path / "train.parquet", {"input_ids": IDS, "label": [0, 1]}, SCHEMA)
    return TokenizedTexts(tmp_path / "train.parquet")


@pytest.fixture(params=["mean", "first", "native"])
def classifier(request, tiny_encoder):
    torch.manual_seed(0)
    return build_classifier(tiny_encoder, INTENTS, request.param, feature_scale=10.0)


def table_of(model):
    return model.get_input_embeddings().weight.detach().clone()


def train(model, num_steps=5):
    model.eval()  # no dropout: two trainings are to be compared
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.01, weight_decay=0.0)
    for _ in range(num_steps):
        loss = model(input_ids=torch.tensor([IDS[0]]), labels=torch.tensor([0])).loss
        loss += model(input_ids=torch.tensor([IDS[1]]), labels=torch.tensor([1])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_training_the_used_rows_is_training_the_table(classifier, texts):
    start = {name: value.clone() for name, value in classifier.state_dict().items()}
    train(classifier)
    expected = classifier.state_dict()
    expected = {name: value.clone() for name, value in expected.items()}
    classifier.load_state_dict(start)
    with only_used_rows(classifier, texts):
        train(classifier)
    found = classifier.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_other_rows_stay_and_are_looked_up(classifier, texts):
    before = table_of(classifier)
    unseen = torch.tensor([[2, 8, 10, 3, 0]])
    classifier.eval()
    answer = classifier(input_ids=unseen).logits
    with only_used_rows(classifier, texts):
        assert classifier.get_input_embeddings().weight.shape == (len(USED), 32)
        torch.testing.assert_close(classifier(input_ids=unseen).logits, answer)
        train(classifier)
    changed = (table_of(classifier) != before).any(1).nonzero().flatten().tolist()
    assert changed == USED


def test_a_frozen_table_is_left_alone(classifier, texts):
    freeze(classifier, "embeddings")
    table = classifier.get_input_embeddings()
    with only_used_rows(classifier, texts):
        assert classifier.get_input_embeddings() is table


def test_the_table_is_whole_again_after_an_error(classifier, texts):
    with pytest.raises(KeyboardInterrupt), only_used_rows(classifier, texts):
        raise KeyboardInterrupt
    assert table_of(classifier).shape[0] > len(USED)


def test_tokens_are_listed_once(texts):
    assert texts.tokens().tolist() == USED
    assert texts.tokens().dtype == np.int64
