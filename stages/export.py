"""Turns the classifier into ONNX, in fp32 and int8, and fails if that costs accuracy on validation.

Reads models/{trained,calibration} and data/{prepared,tokenized}/validation.parquet, writes models/onnx and
metrics/export.json.

    python -m stages.export
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from intents.calibrations import read_calibration
from intents.cli import run
from intents.exported import MODEL_FILES, SETTINGS_FILE, TOKENIZER_FILE, ExportSettings, read_settings
from intents.files import atomic_path, sha256_of, write_json
from intents.gate import Logits, compare, failures
from intents.params import Params, load_params

TRAINED_DIR = Path("models/trained")
CALIBRATION_DIR = Path("models/calibration")
PREPARED_PATH = Path("data/prepared/validation.parquet")
TOKENIZED_PATH = Path("data/tokenized/validation.parquet")
ONNX_DIR = Path("models/onnx")
METRICS_PATH = Path("metrics/export.json")
BATCH_SIZE = 32
SAMPLE = 500  # validation texts that show the quantisation how large activations are
MAX_LOGIT_DIFFERENCE = 1e-3  # between fp32 and PyTorch: rounding alone
Compare = Callable[[list[Logits]], dict[str, Any]]


class ExportParams(Params):
    """Section `export` of params.yaml."""

    quantisation: Literal["auto", "static", "tokens", "mixed", "careful", "blockwise"]
    min_agreement: float = Field(ge=0, le=1)
    max_accuracy_drop: float = Field(ge=0, le=100)


def write_graph(folder: Path) -> tuple[Any, Logits]:
    """Write the fp32 graph and the tokenizer; return the validation split's tokens and PyTorch's logits for them."""
    import transformers

    from intents.batching import TokenizedTexts
    from intents.classifier import load_classifier
    from intents.exporting import export_onnx
    from intents.predicting import predict_logits

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = load_classifier(TRAINED_DIR)
    tokenizer = transformers.AutoTokenizer.from_pretrained(TRAINED_DIR, trust_remote_code=False)
    tokens = TokenizedTexts(TOKENIZED_PATH)
    expected_nc = predict_logits(model, tokens, tokenizer.pad_token_id, BATCH_SIZE)

    export_onnx(model, folder / MODEL_FILES["fp32"])
    # The file carries the limits of the encoder's authors; whoever reads it next is to cut where training cut.
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(tokenizer.model_max_length, direction=tokenizer.truncation_side)
    backend.save(str(folder / TOKENIZER_FILE))
    names: dict[int, str] = dict(model.config.id2label)
    intents = [names[label] for label in sorted(names)]
    settings = ExportSettings(
        intents=intents,
        max_length=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        **asdict(read_calibration(CALIBRATION_DIR, intents, required=True)),
        checkpoint_sha256=sha256_of(TRAINED_DIR / "model.safetensors"),
    )
    write_json(folder / SETTINGS_FILE, asdict(settings))
    note_files(folder)
    return tokens, expected_nc


def note_files(folder: Path) -> None:
    """Note sizes and hashes of the models and the tokenizer, by which the runtime knows a damaged folder."""
    names = [*MODEL_FILES.values(), TOKENIZER_FILE]
    found = {name: folder / name for name in names if (folder / name).is_file()}
    files = {name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in found.items()}
    write_json(folder / SETTINGS_FILE, {**asdict(read_settings(folder)), "files": files})


def logits_of(folder: Path, variant: Literal["fp32", "int8"]) -> list[Logits]:
    """Return the runtime's logits for the validation texts, one by one and in batches."""
    from intents.runtime import IntentClassifier

    classifier = IntentClassifier.load(folder, variant)
    texts = pq.read_table(PREPARED_PATH, columns=["text"]).column("text").to_pylist()
    with ThreadPoolExecutor() as pool:  # onnxruntime lets go of the interpreter
        return list(pool.map(partial(classifier.logits, texts), (1, BATCH_SIZE)))


def choose_int8(
    folder: Path,
    quantisation: str,
    texts: Sequence[Sequence[int]],
    limits: dict[str, float],
    against_pytorch: Compare,
    accuracy: float,
) -> list[dict[str, Any]]:
    """Write the int8 graph of the first recipe that passes the gate; return what each that was tried is worth.

    Raises:
        ValueError: none passes.

    """
    from intents.quantising import RECIPES, quantise

    tried = []
    for recipe in [name for name in RECIPES if quantisation in ("auto", name)]:
        quantise(folder / MODEL_FILES["fp32"], folder / MODEL_FILES["int8"], recipe, texts)
        note_files(folder)
        int8 = against_pytorch(logits_of(folder, "int8"))
        problems = failures(int8, accuracy, **limits)
        tried.append({"quantisation": recipe, **int8, "passes": not problems})
        print(f"int8 {recipe}: " + ("passes the gate" if not problems else "; ".join(problems)))
        if not problems:
            return tried
    raise ValueError(
        f"export gate: no int8 variant passes; {recipe}: {'; '.join(problems)}. Ask for less with"
        " export.min_agreement or export.max_accuracy_drop, or use models/classifier, which is as it was"
    )


def check_settings() -> None:
    """Raise ValueError where the settings of this stage are wrong: `train` asks before it begins."""
    load_params("export", ExportParams)


def main() -> None:
    """Run the stage."""
    params = load_params("export", ExportParams)
    limits = {"min_agreement": params.min_agreement, "max_accuracy_drop": params.max_accuracy_drop}
    with atomic_path(ONNX_DIR, folder=True) as folder:
        folder.mkdir()
        tokens, expected_nc = write_graph(folder)
        settings = read_settings(folder)
        against_pytorch = partial(
            compare, tokens.labels, expected_nc, intents=settings.intents, calibration=settings.calibration
        )
        pytorch = against_pytorch([expected_nc])
        fp32 = against_pytorch(logits_of(folder, "fp32"))
        problems = failures(fp32, pytorch["accuracy"], **limits, max_logit_difference=MAX_LOGIT_DIFFERENCE)
        if problems:
            raise ValueError(f"export gate: the fp32 graph is not the classifier: {'; '.join(problems)}")
        # From the whole split: a file may be sorted by intent.
        rows = np.linspace(0, len(tokens) - 1, min(SAMPLE, len(tokens))).astype(int).tolist()
        texts = [tokens[row]["input_ids"] for row in rows]
        tried = choose_int8(folder, params.quantisation, texts, limits, against_pytorch, pytorch["accuracy"])
        sizes = {name: round((folder / file).stat().st_size / 1e6, 1) for name, file in MODEL_FILES.items()}
    write_json(METRICS_PATH, report(pytorch, fp32, tried, sizes))
    if tried[-1]["false_actions"] > pytorch["false_actions"]:
        print(
            f"warning: of the validation texts that ask for nothing int8 acts on {tried[-1]['false_actions']},"
            f" PyTorch on {pytorch['false_actions']}"
        )
    print(f"{ONNX_DIR} has fp32 ({sizes['fp32']} MB) and int8 ({sizes['int8']} MB, {tried[-1]['quantisation']})")


def report(
    pytorch: dict[str, Any], fp32: dict[str, Any], tried: list[dict[str, Any]], sizes: dict[str, float]
) -> dict[str, Any]:
    """Return what metrics/export.json says; the last of `tried` is the variant that was kept."""
    pytorch, fp32, *tried = (_rounded(found) for found in (pytorch, fp32, *tried))
    int8 = tried[-1]
    return {
        "accuracy": {"pytorch": pytorch["accuracy"], "fp32": fp32["accuracy"], "int8": int8["accuracy"]},
        "agreement": {"fp32": fp32["agreement"], "int8": int8["agreement"]},
        "answer_agreement": {"fp32": fp32["answer_agreement"], "int8": int8["answer_agreement"]},
        "false_actions": {
            name: found["false_actions"] for name, found in (("pytorch", pytorch), ("fp32", fp32), ("int8", int8))
        },
        "size_mb": sizes,
        "quantisation": int8["quantisation"],
        "fp32_logit_difference": fp32["logit_difference"],
        "tried": tried,
    }


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    """Return what the gate found with its shares rounded."""
    shares = ("accuracy", "agreement", "answer_agreement")
    return {name: round(value, 4) if name in shares else value for name, value in found.items()}


if __name__ == "__main__":
    run(main)
