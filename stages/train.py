"""Fine-tunes the encoder and keeps the state that does best on validation.

Reads models/encoder and data/tokenized/{train,validation}.parquet, writes models/trained, metrics/train.json and
metrics/plots/training.csv.

    python -m stages.train
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from intents.cli import run
from intents.devices import WhenBusy, claim_device
from intents.files import atomic_path, write_csv, write_json
from intents.params import Params, load_params, read_params
from intents.tables import intents_of
from intents.tracking import start_tracker

ENCODER_DIR = Path("models/encoder")
TRAIN_PATH = Path("data/tokenized/train.parquet")
VALIDATION_PATH = Path("data/tokenized/validation.parquet")
TRAINED_DIR = Path("models/trained")
METRICS_PATH = Path("metrics/train.json")
CURVES_PATH = Path("metrics/plots/training.csv")


class TrainParams(Params):
    """Section `train` of params.yaml."""

    head: Literal["mean", "native"]
    feature_scale: float = Field(gt=0)
    freeze: Literal["none", "embeddings"] | Annotated[int, Field(ge=1)]
    num_epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    head_learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_share: float = Field(ge=0, lt=1)
    label_smoothing: float = Field(ge=0, lt=1)
    contrastive_weight: float = Field(ge=0)
    contrastive_temperature: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    dropout: float | None = Field(ge=0, lt=1)
    max_grad_norm: float = Field(ge=0)
    precision: Literal["auto", "bf16", "fp32"]
    metric_for_best: Literal["accuracy", "macro_f1", "log_loss"]
    patience: int = Field(ge=1)
    seed: int = Field(ge=0)

    @field_validator("contrastive_weight")
    @classmethod
    def _has_features_to_contrast(cls, weight: float, info: ValidationInfo) -> float:
        if weight and info.data.get("head") == "native":
            raise ValueError("Must be 0 with train.head=native: the loss works on the features of head=mean")
        return weight


class TrackingParams(Params):
    """Section `tracking` of params.yaml: no stage depends on it."""

    report_to: Literal["wandb", "tensorboard", "none"]
    project: str = Field(min_length=1)


class RuntimeParams(Params):
    """Section `runtime` of params.yaml: no stage depends on it."""

    when_busy: WhenBusy


def main() -> None:
    """Run the stage."""
    params = load_params("train", TrainParams)
    tracking = load_params("tracking", TrackingParams)
    runtime = load_params("runtime", RuntimeParams)
    durable_dir = Path(os.environ.get("DVC_ROOT", ".")) / ".cache"
    claim = claim_device(runtime.when_busy, durable_dir / "devices")
    # Heavy packages only once the settings are known to be right and CUDA knows which GPU it may see.
    import transformers

    from intents.batching import TokenizedTexts
    from intents.classifier import build_classifier, freeze, set_dropout
    from intents.tokenizing import load_tokenizer, max_length_of
    from intents.trainer import TrainingSettings, resolve_precision
    from intents.training import fine_tune, parameter_counts

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(params.seed)
    train, validation = TokenizedTexts(TRAIN_PATH), TokenizedTexts(VALIDATION_PATH)
    tokenizer = load_tokenizer(ENCODER_DIR, max_length_of(TRAIN_PATH))
    model = build_classifier(ENCODER_DIR, intents_of(TRAIN_PATH), params.head, params.feature_scale)
    freeze(model, params.freeze)
    if params.dropout is not None:
        set_dropout(model, params.dropout)
    counts = parameter_counts(model)
    print(f"trainable parameters: {counts['trainable']:,} of {counts['all']:,}, on {claim.device}")

    name = os.environ.get("DVC_EXP_NAME")
    tracker = start_tracker(tracking.report_to, tracking.project, name, read_params(), durable_dir)
    settings = TrainingSettings(**params.model_dump(exclude={"head", "feature_scale", "freeze", "dropout"}))
    result = fine_tune(model, train, validation, tokenizer.pad_token_id, settings, tracker.log)
    metrics: dict[str, Any] = {
        "best": {"epoch": result.best["epoch"], "step": result.best["step"]},
        "validation": {name: round(result.best[name], 4) for name in ("accuracy", "macro_f1", "log_loss")},
        "examples_per_second": round(result.examples_per_second, 1),
        "useful_tokens_per_second": round(result.useful_tokens_per_second, 1),
        "padding_share": round(result.padding_share, 4),
        "parameters": counts,
        "precision": resolve_precision(params.precision),
    }
    with atomic_path(TRAINED_DIR) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    write_csv(CURVES_PATH, [{name: f"{value:.6g}" for name, value in point.items()} for point in result.curves])
    write_json(METRICS_PATH, metrics)
    tracker.finish(metrics)
    claim.release()
    best = ", ".join(f"{name} {value}" for name, value in metrics["validation"].items())
    print(f"best state: epoch {result.best['epoch']:g}, validation {best}; saved to {TRAINED_DIR}")


if __name__ == "__main__":
    run(main)
