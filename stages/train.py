"""Fine-tunes the encoder and keeps the state that does best on validation.

Where there are unlabelled texts it does so twice: what the first training makes of them the second one learns from.

Reads models/encoder and data/tokenized/{train,validation,unlabelled}.parquet, writes models/trained, models/adapter,
metrics/train.json and metrics/plots/training.csv.

    python -m stages.train
"""

import importlib
import logging
import os
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from intents.allocation import keep_freed_memory
from intents.cli import run
from intents.devices import Claim, WhenBusy, claim_devices, with_models
from intents.files import atomic_path, check_replaceable, write_csv, write_json
from intents.launching import is_first, launch, num_launched, num_together, work
from intents.params import Params, load_params, read_params
from intents.tables import intents_of
from intents.tracking import start_tracker

if TYPE_CHECKING:
    from intents.checkpoints import Checkpoints
    from intents.methods import Trainee
    from intents.training import TrainingResult

ENCODER_DIR = Path("models/encoder")
TRAIN_PATH = Path("data/tokenized/train.parquet")
VALIDATION_PATH = Path("data/tokenized/validation.parquet")
UNLABELLED_PATH = Path("data/tokenized/unlabelled.parquet")
TRAINED_DIR = Path("models/trained")
ADAPTER_DIR = Path("models/adapter")
METRICS_PATH = Path("metrics/train.json")
CURVES_PATH = Path("metrics/plots/training.csv")
LATER_STAGES = ("baselines", "calibrate", "evaluate", "card", "export")
PACKAGES = ("torch", "transformers", "accelerate", "numpy", "peft", "bitsandbytes")  # with another one, no resuming


class TrainParams(Params):
    """Section `train` of params.yaml."""

    head: Literal["mean", "first", "native"]
    feature_scale: float = Field(gt=0)
    method: Literal["full", "lora", "qlora"]
    freeze: Literal["none", "embeddings"] | Annotated[int, Field(ge=1)]
    lora_rank: int = Field(ge=1)
    lora_alpha: float = Field(gt=0)
    lora_dropout: float = Field(ge=0, lt=1)
    lora_targets: Literal["all"] | Annotated[list[str], Field(min_length=1)]
    num_epochs: int = Field(ge=1)
    min_steps: int = Field(ge=0)
    pseudo_label_share: float = Field(gt=0, le=1)
    pseudo_label_epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(ge=1)
    gradient_checkpointing: bool
    learning_rate: float = Field(gt=0)
    head_learning_rate: float = Field(gt=0)
    layer_decay: float = Field(gt=0, le=1)
    scheduler: Literal["linear", "cosine", "constant_with_warmup", "inverse_sqrt"]
    warmup_share: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    class_weights: Literal["none", "balanced"]
    label_smoothing: float = Field(ge=0, lt=1)
    contrastive_weight: float = Field(ge=0)
    contrastive_temperature: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1)
    dropout: float | None = Field(ge=0, lt=1)
    max_grad_norm: float = Field(ge=0)
    adversarial_norm: float = Field(ge=0)
    precision: Literal["auto", "bf16", "fp32"]
    devices: Literal["auto"] | Annotated[int, Field(ge=1)]
    metric_for_best: Literal["accuracy", "macro_f1", "log_loss"]
    patience: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)

    @field_validator("gradient_accumulation")
    @classmethod
    def _every_part_has_a_text(cls, parts: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size", parts)
        if parts > batch_size:
            raise ValueError(f"Must be at most train.batch_size={batch_size}, the texts that it divides")
        return parts

    @field_validator("warmup_share")
    @classmethod
    def _has_a_peak_to_fall_from(cls, share: float, info: ValidationInfo) -> float:
        if not share and info.data.get("scheduler") == "inverse_sqrt":
            raise ValueError(
                "Must be above 0 with train.scheduler=inverse_sqrt: rates fall by the length of the warmup"
            )
        return share

    @field_validator("contrastive_weight")
    @classmethod
    def _has_features_to_contrast(cls, weight: float, info: ValidationInfo) -> float:
        if weight and info.data.get("head") == "native":
            raise ValueError("Must be 0 with train.head=native: the loss works on the features of the other heads")
        together = info.data.get("batch_size", 2) // info.data.get("gradient_accumulation", 1)
        if weight and together < 2:
            raise ValueError(
                "Must be 0 where the parts of a step (train.batch_size, train.gradient_accumulation) hold one text: the"
                " loss compares texts"
            )
        return weight


class TrackingParams(Params):
    """Section `tracking` of params.yaml: no stage depends on it."""

    report_to: Literal["wandb", "tensorboard", "none"]
    project: str = Field(min_length=1)

    @field_validator("project")
    @classmethod
    def _is_a_name(cls, project: str) -> str:
        if set(project) & set("/\\#?%:"):
            raise ValueError("Must not contain any of / \\ # ? % : (a team goes into the variable WANDB_ENTITY)")
        return project


class RuntimeParams(Params):
    """Section `runtime` of params.yaml: no stage depends on it."""

    when_busy: WhenBusy
    checkpoint_every: float = Field(ge=0)  # here, and not in `train`: it must never retrain


def check_later_settings() -> None:
    """Raise ValueError where a later stage would refuse its settings: it would say so only after the training.

    The stages are imported by name, and so are no dependency in dvc.yaml: nothing in them changes what is trained.
    """
    for stage in LATER_STAGES:
        importlib.import_module(f"stages.{stage}").check_settings()


def main() -> None:
    """Run the stage, in as many processes as `train.devices` asks for."""
    params = load_params("train", TrainParams)
    tracking = load_params("tracking", TrackingParams)
    runtime = load_params("runtime", RuntimeParams)
    num_processes = num_together(params.devices)
    if num_processes * params.gradient_accumulation > params.batch_size:
        raise ValueError(
            f"train.batch_size: {num_processes} processes (train.devices) need a text each in each of the"
            f" {params.gradient_accumulation} parts of a step (train.gradient_accumulation), so at least"
            f" {num_processes * params.gradient_accumulation}, got {params.batch_size}"
        )
    if is_first():
        check_later_settings()
        for path in (TRAINED_DIR, ADAPTER_DIR):
            check_replaceable(path, folder=True)
    durable_dir = Path(os.environ.get("DVC_ROOT", ".")) / ".cache"
    claim = claim_devices(params.devices, runtime.when_busy, durable_dir / "devices")
    train = partial(_train, params, tracking, runtime, durable_dir, claim)
    try:
        if num_launched() is not None:
            work(train)
        elif num_processes > 1:
            launch("stages.train", num_processes)
        else:
            train()
    finally:
        claim.release()


def _train(
    params: TrainParams, tracking: TrackingParams, runtime: RuntimeParams, durable_dir: Path, claim: Claim
) -> None:
    """Train; of several processes the first one writes the results."""
    keep_freed_memory()
    # transformers imports bitsandbytes where it is installed, which then advises a package that nothing here needs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Heavy packages only once the settings are known to be right and CUDA knows which GPU it may see.
    import transformers

    from intents.batching import TokenizedTexts
    from intents.methods import ModelSettings, build_trainee
    from intents.parallel import part_company
    from intents.self_training import find_pseudo_labels, with_pseudo_labels
    from intents.tokenizing import load_tokenizer, max_length_of
    from intents.training import fine_tune
    from intents.training_settings import TrainingSettings, passes_per_epoch

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    train, validation, unlabelled = map(TokenizedTexts, (TRAIN_PATH, VALIDATION_PATH, UNLABELLED_PATH))
    tokenizer = load_tokenizer(ENCODER_DIR, max_length_of(TRAIN_PATH))

    def build() -> "Trainee":
        transformers.set_seed(params.seed)
        return build_trainee(ENCODER_DIR, intents_of(TRAIN_PATH), _chosen(ModelSettings, params))

    trainee = build()
    counts = trainee.num_parameters
    first = is_first()
    if first:
        devices = ", ".join(with_models(claim.devices))
        print(f"trainable parameters: {counts['trainable']:,} of {counts['all']:,}, on {devices}")

    name = os.environ.get("DVC_EXP_NAME")
    tracker = start_tracker(tracking.report_to if first else "none", tracking.project, name, read_params(), durable_dir)
    settings = _chosen(TrainingSettings, params)
    open_checkpoints = partial(_checkpoints, params, runtime.checkpoint_every, durable_dir / "checkpoints")
    written, learnt, training = list["Checkpoints | None"](), dict[str, Any](), ""
    _announce(passes_per_epoch(len(train), settings), params.min_steps)
    if len(unlabelled):
        written.append(open_checkpoints("labelled rows alone") if first else None)
        texts = train, validation, unlabelled, tokenizer.pad_token_id
        found = find_pseudo_labels(trainee.model, *texts, settings, params.pseudo_label_share, written[-1])
        learnt = {"self_training": {"texts": len(found.texts_m), "validation_before": _headline(found.scores)}}
        if first:
            print(f"now with {len(found.texts_m):,} of {len(unlabelled):,} unlabelled texts, under the intents found")
        training = found.sha256
        train, trainee = with_pseudo_labels(train, unlabelled, found), build()
        settings = replace(settings, num_epochs=params.pseudo_label_epochs)
        _announce(passes_per_epoch(len(train), settings), params.min_steps)
    written.append(open_checkpoints(training) if first else None)
    result = fine_tune(trainee.model, train, validation, tokenizer.pad_token_id, settings, tracker.log, written[-1])
    part_company()
    if not first:
        return
    about = {"passes_per_epoch": passes_per_epoch(len(train), settings), **_metrics(result), **learnt}
    metrics = _write_results(trainee, tokenizer, (train, validation), result, params.precision, about)
    tracker.finish(metrics)
    for checkpoints in written:  # the last thing that could be lost: DVC deletes what a failed stage wrote
        if checkpoints is not None:
            checkpoints.remove()
    if learnt:
        before = learnt["self_training"]["validation_before"]
        print(f"the labelled rows alone: validation {_line(before)}")
        sign = -1 if params.metric_for_best == "log_loss" else 1
        if sign * before[params.metric_for_best] > sign * metrics["validation"][params.metric_for_best]:
            print(
                f"warning: by {params.metric_for_best} the unlabelled texts made it worse"
                " (-S prepare.unlabelled_source=data/none does without)"
            )
    print(
        f"best state: epoch {result.best['epoch']:g}, validation {_line(metrics['validation'])}; saved to {TRAINED_DIR}"
    )


def _write_results(
    trainee: "Trainee", tokenizer: Any, splits: tuple[Any, Any], result: "TrainingResult", precision: str, about: Any
) -> dict[str, Any]:
    """Write the classifier, its adapter if it has one, the curves and the metrics, which start with `about`."""
    from intents.methods import finish
    from intents.precision import resolve_precision
    from intents.trainer import score

    model = finish(trainee, ENCODER_DIR, ADAPTER_DIR)
    precision = resolve_precision(precision, trainee.model)
    metrics = {**about, "parameters": trainee.num_parameters, "precision": precision}
    if trainee.adapter is not None:  # what ships is the merged classifier
        scores = score(model, *splits, tokenizer.pad_token_id, precision)
        metrics["validation"] = _headline(scores)
        metrics["merging"] = {"log_loss_change": round(scores["log_loss"] - result.best["log_loss"], 4)}
    with atomic_path(TRAINED_DIR, folder=True) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    write_csv(CURVES_PATH, [{name: _shown(value) for name, value in point.items()} for point in result.curves])
    write_json(METRICS_PATH, metrics)
    return metrics


def _shown(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)  # steps are whole


def _announce(passes: int, min_steps: int) -> None:
    if passes > 1 and is_first():
        print(f"few texts: each epoch passes over them {passes} times, for {min_steps} steps (train.min_steps)")


def _chosen(settings: type[Any], params: TrainParams) -> Any:
    """Return those of `params` that `settings` has."""
    return settings(**params.model_dump(include={field.name for field in fields(settings)}))


def _checkpoints(params: TrainParams, every_s: float, folder: Path, training: str) -> "Checkpoints | None":
    """Return where this `training`, and no other, keeps its checkpoints; None if it is to keep none."""
    if not every_s:
        return None
    import intents
    from intents.checkpoints import Checkpoints, run_key, surroundings

    code = sorted(Path(intents.__file__).parent.glob("*.py"))
    described = {"params": params.model_dump(), "processes": num_launched(), "training": training}
    settings = {**described, **surroundings(PACKAGES)}
    inputs = [ENCODER_DIR, TRAIN_PATH, VALIDATION_PATH, UNLABELLED_PATH]
    return Checkpoints(folder, run_key(settings, [*inputs, Path(__file__), *code]), every_s)


def _metrics(result: "TrainingResult") -> dict[str, Any]:
    return {
        "best": {"epoch": result.best["epoch"], "step": result.best["step"]},
        "validation": _headline(result.best),
        "examples_per_second": round(result.examples_per_second, 1),
        "useful_tokens_per_second": round(result.useful_tokens_per_second, 1),
        "padding_share": round(result.padding_share, 4),
    }


def _headline(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(scores[name], 4) for name in ("accuracy", "macro_f1", "log_loss")}


def _line(headline: dict[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in headline.items())


if __name__ == "__main__":
    run(main)
