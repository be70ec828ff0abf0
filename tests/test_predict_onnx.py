import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from intents.bulk.loading import load_scorer
from intents.bulk.torch_scoring import TorchScorer
from tests.predict_fixtures import (
    REPOSITORY,
    answer,
    classifier,  # noqa: F401
    exported,  # noqa: F401
    read_jsonl,
    texts_of,
    write_jsonl,
)


def test_an_exported_classifier_gives_the_calibrated_probabilities_of_its_checkpoint(
    exported,  # noqa: F811
    classifier,  # noqa: F811
    tmp_path,
):
    checkpoint = shutil.copytree(classifier, tmp_path / "checkpoint")
    settings = json.loads((exported / "classifier.json").read_text())
    (checkpoint / "calibration.json").write_text(json.dumps(settings))
    texts = [*texts_of(300), "word " * 500]
    scorer = load_scorer(exported, "fp32", num_threads=2)
    expected = TorchScorer(checkpoint)
    np.testing.assert_allclose(scorer.probabilities(texts), expected.probabilities(texts), atol=1e-5)
    assert (scorer.intents, scorer.calibration) == (expected.intents, expected.calibration)
    assert scorer.probabilities([]).shape == (0, 3)

    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    for model, variant in ((exported, ["--variant", "fp32"]), (checkpoint, [])):
        answer(tmp_path / "in.jsonl", tmp_path / f"{model.name}.jsonl", "--model", model, *variant)
    exported_intents, intents = (
        [row["intent"] for row in read_jsonl(tmp_path / f"{model.name}.jsonl")] for model in (exported, checkpoint)
    )
    assert exported_intents == intents
    assert len(set(intents)) > 1


def test_a_variant_of_a_checkpoint_is_refused_and_a_checkpoint_in_place_of_the_export_named(
    classifier,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(classifier, tmp_path / "models/classifier")
    write_jsonl(tmp_path / "in.jsonl", [{"text": "open it"}])
    with pytest.raises(ValueError, match="--variant int8: .*models/classifier is a checkpoint, which has no variants"):
        answer("in.jsonl", "out.jsonl", "--variant", "int8")
    answer("in.jsonl", "out.jsonl")
    assert f"no models/onnx: {tmp_path}/models/classifier answers\n" in capsys.readouterr().err


def test_answering_with_an_exported_classifier_imports_no_torch(exported, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in.jsonl", [{"text": "open it"}])
    options = ["--model", str(exported), "--variant", "fp32"]
    program = f"""
import sys
from apps.predict import parse_arguments, predict
predict(parse_arguments({[str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), *options]!r}))
print(*({{"torch", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_int8_is_the_variant_unless_another_is_asked_for(exported, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "in.jsonl", [{"text": "open it"}])
    with pytest.raises(ValueError, match="model-int8.onnx is missing"):
        answer(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--model", exported)
