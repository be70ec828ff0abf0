"""Baselines on texts that words alone, or the encoder's features alone, can tell apart."""

import numpy as np
import pyarrow as pa
import pytest

from intents.baselines import (
    majority_baseline,
    regression_baseline,
    sample_rows,
    sample_training_rows,
    tfidf_features,
)
from intents.batching import TokenizedTexts
from intents.encoding import encode_tokens
from intents.tables import write_table
from stages.baselines import BaselinesParams, choose_rows

WORDS = ("window glass", "wiper rain")
TEXTS = {
    "train": [f"{WORDS[i % 2]} {number}" for i, number in enumerate(range(40))],
    "validation": [f"please {WORDS[i % 2]}" for i in range(10)],
    "test": ["a window", "a wiper", "glass"],
}
LABELS = {split: np.arange(len(TEXTS[split])) % 2 for split in ("train", "validation")}


def test_majority_answers_the_most_frequent_training_intent():
    found = majority_baseline({"train": np.array([0, 2, 2]), "validation": np.array([2, 0, 0, 2])}, 3)
    assert found.predicted_n.tolist() == [2, 2, 2]
    assert found.validation_accuracy == 0.5 and found.regularisation is None


def test_tfidf_regression_learns_the_words():
    found = regression_baseline(tfidf_features(TEXTS), LABELS, [1.0, 10.0])
    assert found.predicted_n.tolist() == [0, 1, 0]
    assert found.validation_accuracy == 1.0
    assert found.regularisation == 1.0  # both are right about everything: the smaller wins
    assert found.seconds > 0


def test_tfidf_learns_characters_where_there_are_no_words():
    texts = {"train": ["打 开", "关 上", "🚗"], "validation": ["打 开"], "test": ["上 关", "开 打"]}
    features_of = tfidf_features(texts)
    assert features_of("train").shape[0] == 3 and features_of("test").nnz > 0


def test_the_regularisation_is_chosen_on_validation_whatever_the_order_given():
    random = np.random.default_rng(0)
    features = {split: random.normal(size=(n, 60)) for split, n in (("train", 80), ("validation", 500), ("test", 200))}
    noise = random.normal(size=80)
    labels = {
        "train": ((features["train"][:, 0] + noise) > 0).astype(np.int64),
        "validation": (features["validation"][:, 0] > 0).astype(np.int64),
    }
    alone = {c: regression_baseline(features.__getitem__, labels, [c]) for c in (0.03, 1e4)}
    assert alone[0.03].validation_accuracy > alone[1e4].validation_accuracy
    found = [regression_baseline(features.__getitem__, labels, order) for order in ([0.03, 1e4], [1e4, 0.03])]
    assert [one.regularisation for one in found] == [0.03, 0.03]
    assert (found[0].predicted_n == alone[0.03].predicted_n).all()  # not those of the last fit


def test_an_intent_that_train_lacks_is_never_answered():
    labels = {"train": LABELS["train"] * 2, "validation": LABELS["validation"]}
    assert set(regression_baseline(tfidf_features(TEXTS), labels, [1.0]).predicted_n) <= {0, 2}


@pytest.mark.filterwarnings("default")
def test_encoder_features_are_normalised_means_of_the_chosen_rows(tiny_encoder, tmp_path):
    import torch
    from transformers import AutoModel

    ids = [[2, 5, 7, 9, 3], [2, 6, 3], [2, 8, 10, 11, 12, 3]]
    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int32())])
    write_table(tmp_path / "train.parquet", {"input_ids": ids, "label": [0, 1, 0]}, schema)
    rows = np.array([0, 2])
    texts = TokenizedTexts(tmp_path / "train.parquet")
    found = encode_tokens(tiny_encoder, [texts[row] for row in rows], pad_token_id=0)
    encoder = AutoModel.from_pretrained(tiny_encoder).eval()
    for feature, row in zip(found, rows, strict=True):
        with torch.inference_mode():
            mean = encoder(input_ids=torch.tensor([ids[row]])).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(feature, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_sample_is_bounded_and_depends_on_the_seed_alone():
    assert sample_rows(5, 10, seed=0).tolist() == [0, 1, 2, 3, 4]
    drawn = sample_rows(1000, 10, seed=0)
    assert len(set(drawn)) == 10 and (np.diff(drawn) > 0).all()
    assert (drawn == sample_rows(1000, 10, seed=0)).all() and (drawn != sample_rows(1000, 10, seed=1)).any()


def test_a_training_sample_has_a_row_of_each_intent_and_is_else_the_plain_one():
    common = np.arange(5000) % 2
    rare = common.copy()
    rare[[7, 4999]] = 2, 3
    assert (sample_training_rows(common, 50, seed=0) == sample_rows(5000, 50, seed=0)).all()
    assert (sample_training_rows(rare, 5000, seed=0) == np.arange(5000)).all()
    for most in (4, 50):
        drawn = sample_training_rows(rare, most, seed=0)
        assert len(drawn) == most and (np.diff(drawn) > 0).all()
        assert set(rare[drawn]) == {0, 1, 2, 3}
        assert (drawn == sample_training_rows(rare, most, seed=0)).all()
    assert len(set(drawn) & set(sample_rows(5000, 50, seed=0))) == 48


def test_fewer_rows_than_intents_are_refused_by_name():
    with pytest.raises(ValueError, match="baselines.max_rows must be at least 3, the number of intents, got 2"):
        sample_training_rows(np.arange(30) % 3, 2, seed=0)


def test_the_stage_draws_every_training_intent_and_reads_no_test_label(tmp_path, monkeypatch):
    for split, labels in (("train", [0] * 99 + [1]), ("validation", [0] * 99 + [1])):
        write_table(tmp_path / f"{split}.parquet", {"label": labels}, pa.schema([("label", pa.int64())]))
    write_table(tmp_path / "test.parquet", {"text": ["a", "b"]}, pa.schema([("text", pa.string())]))
    monkeypatch.setattr("stages.baselines.PREPARED_DIR", tmp_path)
    rows = choose_rows(BaselinesParams(regularisations=[1.0], max_rows=2, seed=0))
    assert {split: len(found) for split, found in rows.items()} == {"train": 2, "validation": 2, "test": 2}
    assert rows["train"][-1] == 99


def test_rows_of_an_intent_that_train_lacks_do_not_count():
    labels = {"train": LABELS["train"], "validation": np.where(np.arange(10) < 4, 2, LABELS["validation"])}
    assert regression_baseline(tfidf_features(TEXTS), labels, [1.0]).validation_accuracy == 1.0
    assert majority_baseline(labels, 1).validation_accuracy == 0.5
