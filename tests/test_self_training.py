import json
from pathlib import Path

import numpy as np
import pytest

from intents.self_training import PseudoLabels, surest, with_pseudo_labels
from stages import train as stage
from tests.training_fixtures import INTENTS, start_stage, write_split

pytest_plugins = ["tests.training_fixtures"]


def test_of_each_intent_its_share_of_the_surest_texts_is_chosen():
    logits = np.array([[2, 0], [0, 1], [5, 0], [3, 0], [0, 9], [1, 0]], dtype=np.float32)
    texts, labels = surest(logits, 0.5)
    assert texts.tolist() == [2, 3, 4]
    assert labels.tolist() == [0, 0, 1]
    assert surest(logits, 1.0)[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert surest(logits, 0.01)[0].tolist() == [2, 4]  # of each intent at least one


@pytest.mark.parametrize(("share", "num_texts"), [(0.55, 100), (0.28, 50), (0.7, 10)])
def test_a_share_is_not_rounded_up_beyond_what_it_is(share, num_texts):
    texts, _ = surest(np.eye(2, dtype=np.float32)[[0] * num_texts], share)
    assert len(texts) == round(share * num_texts)


def test_labelled_texts_are_repeated_where_they_would_be_few(tmp_path):
    labelled = write_split(tmp_path / "labelled.parquet", 10, 0)
    unlabelled = write_split(tmp_path / "unlabelled.parquet", 80, 1)
    for num_found, repeats in ((3, 1), (29, 1), (31, 2), (60, 3)):
        found = PseudoLabels(np.arange(num_found) + 5, np.full(num_found, 2), {})
        joint = with_pseudo_labels(labelled, unlabelled, found)
        assert joint.labels.tolist() == [*labelled.labels.tolist()] * repeats + [2] * num_found
        assert joint[10 * repeats - 1]["input_ids"].tolist() == labelled[9]["input_ids"].tolist()
        assert joint[10 * repeats]["input_ids"].tolist() == unlabelled[5]["input_ids"].tolist()


@pytest.fixture
def inputs(stage_inputs):
    """The stage's inputs, few of them labelled; returns the function that changes settings."""
    facts = {"intents": INTENTS, "max_length": 16}
    write_split(Path("data/tokenized/train.parquet"), 30, 0, facts=facts)
    write_split(Path("data/tokenized/unlabelled.parquet"), 400, 3)
    stage_inputs("train", head="mean", num_epochs=12, patience=12, pseudo_label_epochs=6, batch_size=16)
    return stage_inputs


def metrics():
    return json.loads(Path("metrics/train.json").read_text())


def test_unlabelled_texts_make_a_classifier_of_few_rows_better(inputs, capsys):
    inputs("train", pseudo_label_share=0.8)
    stage.main()
    found = metrics()
    learnt = found["self_training"]
    assert 320 <= learnt["texts"] <= 323  # the share of each of three intents is rounded up
    assert found["validation"]["accuracy"] > learnt["validation_before"]["accuracy"]
    assert len(Path("metrics/plots/training.csv").read_text().splitlines()) == 1 + 6  # pseudo_label_epochs
    assert f"now with {learnt['texts']} of 400 unlabelled texts" in capsys.readouterr().out

    write_split(Path("data/tokenized/unlabelled.parquet"), 0, 3)
    stage.main()
    assert "self_training" not in metrics()
    assert metrics()["validation"] == learnt["validation_before"]


@pytest.mark.slow
def test_killed_in_the_second_training_it_goes_on_there_and_ends_in_the_same_classifier(inputs):
    inputs("train", num_epochs=1, pseudo_label_epochs=8, dropout=0.1)
    inputs("runtime", checkpoint_every=0.2)
    path = Path("models/trained/model.safetensors")
    assert "resuming" not in start_stage().communicate()[0]
    expected = path.read_bytes()
    path.unlink()

    process = start_stage()
    for line in process.stdout:  # until the second training has written a checkpoint
        if line.startswith("epoch 4"):
            break
    process.kill()
    process.communicate()
    assert not path.exists()

    printed = start_stage().communicate()[0]
    assert "resuming at step" in printed.partition("unlabelled texts")[2]
    assert printed.count("resuming at step") == 1  # the first training is not begun, and what it answered is kept
    assert path.read_bytes() == expected
    assert list(Path(".cache/checkpoints").iterdir()) == []
