"""The pipeline of this repository, as stages/train.py runs it."""

import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from transformers import PreTrainedModel

from benchmarks.training.flops import EncoderShape, training_flops
from benchmarks.training.jobs import Job
from benchmarks.training.timeline import Timeline
from intents.allocation import keep_freed_memory
from intents.batching import TokenizedTexts, num_batches
from intents.methods import ModelSettings, build_trainee
from intents.params import read_params
from intents.tables import intents_of
from intents.tokenizing import load_tokenizer, max_length_of
from intents.training import fine_tune
from intents.training_settings import TrainingSettings

WARM_UP = 5
QUICK = {"adversarial_norm": 0.0}
# What a system changes in section `train` of params.yaml.
CHANGES = {
    "pipeline": {},
    "quick": QUICK,
    "large_batches": QUICK | {"batch_size": 128, "learning_rate": 4e-4, "ema_decay": 0.96},
}


def pipeline(job: Job) -> dict[str, Any]:
    """Train with section `train` of params.yaml and what the system changes there."""
    return train_pipeline(job, read_params()["train"] | CHANGES[job.system])


def train_pipeline(job: Job, params: Mapping[str, Any]) -> dict[str, Any]:
    """Train with the settings `params` of section `train`."""
    model_settings, settings = (
        chosen(**{field.name: params[field.name] for field in fields(chosen)})
        for chosen in (ModelSettings, TrainingSettings)
    )
    keep_freed_memory()
    transformers.set_seed(params["seed"])
    train, validation = (TokenizedTexts(job.split("tokenized", split)) for split in ("train", "validation"))
    intents = intents_of(job.split("tokenized", "train"))
    tokenizer = load_tokenizer(Path(job.encoder_dir), max_length_of(job.split("tokenized", "train")))
    trainee = build_trainee(Path(job.encoder_dir), intents, model_settings)
    timeline = Timeline()

    def report(values: dict[str, float], step: int) -> None:
        timeline.evaluated(values["validation/accuracy"])

    started = time.perf_counter()
    with timeline.follow():
        result = fine_tune(trainee.model, train, validation, tokenizer.pad_token_id, settings, report)
    fine_tune_s = time.perf_counter() - started
    passes = 2 if settings.adversarial_norm else 1  # forward and backward, for each time that a text counts
    flops = passes * training_flops(
        train.lengths,
        EncoderShape.of(trainee.model.base_model.config),
        model_settings.head,
        len(intents),
        model_settings.freeze,
        _adapter_parameters(trainee.model),
    )
    return {
        **timeline.as_dict(),
        "fine_tune_s": fine_tune_s,
        "steady_step_s": timeline.steady_step_s(WARM_UP),
        "last_pass_step_s": timeline.last_steps_s(num_batches(len(train), settings.batch_size)),
        "num_steps": len(timeline.steps_s),
        "texts_per_step": len(train) / num_batches(len(train), settings.batch_size),
        "useful_tokens_per_text": float(train.lengths.mean()),
        "padding_share": result.padding_share,
        "gflop_per_text": flops / len(train) / 1e9,
        "final_accuracy": result.best["accuracy"],
        "num_validation": int(np.isin(validation.labels, train.labels).sum()),  # those that it scores
    }


def _adapter_parameters(model: PreTrainedModel) -> int | None:
    sizes = [parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name]
    return sum(sizes) if sizes else None
