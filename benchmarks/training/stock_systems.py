"""What others do: the notebook's recipe, and transformers' Trainer as it comes with dynamic padding."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from benchmarks.training.flops import EncoderShape, training_flops
from benchmarks.training.jobs import Job
from benchmarks.training.timeline import Timeline, WorkCounter
from intents.batching import TokenizedTexts
from intents.classifier import build_classifier
from intents.params import read_params
from intents.tables import intents_of
from intents.tokenizing import load_tokenizer, max_length_of

_PADDED_LENGTH = 512
_SEED = 0


class Reporter(TrainerCallback):
    """Tells the timeline of evaluations and checkpoints."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline

    def on_evaluate(self, *args: Any, metrics: dict[str, float], **_: Any) -> None:
        """Note an evaluation."""
        self.timeline.evaluated(metrics["eval_accuracy"])

    def on_save(self, *args: Any, **_: Any) -> None:
        """Note a checkpoint."""
        self.timeline.paused("checkpoint")


def notebook(job: Job) -> dict[str, Any]:
    """Train as the 2023 notebook did, for `max_steps` steps: padded to 512 tokens, 8 texts a step, fp32.

    Every 10 steps it evaluates and saves a checkpoint; it stops after 2 evaluations without a better one.
    """
    arguments = {
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-5,
        "max_steps": job.max_steps,
        "eval_strategy": "steps",
        "eval_steps": 10,
        "save_strategy": "steps",
        "save_steps": 10,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
    }
    callbacks = [EarlyStoppingCallback(early_stopping_patience=2)]
    return _train(job, arguments, callbacks, padded=True, warm_up=2)


def dynamic_padding(job: Job) -> dict[str, Any]:
    """Train with the Trainer's defaults but for 32 texts a step, the learning rate and an evaluation per epoch."""
    arguments = {
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 32,
        "learning_rate": job.learning_rate,
        "num_train_epochs": read_params()["train"]["num_epochs"],
        "eval_strategy": "epoch",
    }
    return _train(job, arguments, [], padded=False, warm_up=5)


def _train(
    job: Job, arguments: dict[str, Any], callbacks: list[TrainerCallback], padded: bool, warm_up: int
) -> dict[str, Any]:
    transformers.set_seed(_SEED)
    train, validation = (TokenizedTexts(job.split("tokenized", split)) for split in ("train", "validation"))
    intents = intents_of(job.split("tokenized", "train"))
    tokenizer = load_tokenizer(Path(job.encoder_dir), max_length_of(job.split("tokenized", "train")))
    model = build_classifier(Path(job.encoder_dir), intents, "native", 1.0)
    longest = min(_PADDED_LENGTH, model.config.max_position_embeddings) if padded else None
    timeline, work = Timeline(), WorkCounter()
    model.register_forward_pre_hook(work, with_kwargs=True)
    with tempfile.TemporaryDirectory() as scratch:
        fixed = {"output_dir": scratch, "use_cpu": True, "report_to": "none", "disable_tqdm": True, "seed": _SEED}
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**fixed, **arguments),
            train_dataset=_rows(train, tokenizer, longest),
            eval_dataset=_rows(validation, tokenizer, longest)[: job.validation_rows],
            data_collator=default_data_collator if padded else DataCollatorWithPadding(tokenizer),
            compute_metrics=_accuracy,
            callbacks=[Reporter(timeline), *callbacks],
        )
        with timeline.follow():
            trainer.train()
    flops = training_flops(train.lengths, EncoderShape.of(model.config), "native", len(intents))
    return {
        **timeline.as_dict(),
        "steady_step_s": timeline.steady_step_s(warm_up),
        "num_steps": len(timeline.steps_s),
        "texts_per_step": work.texts / len(timeline.steps_s),
        "useful_tokens_per_text": work.useful_tokens / work.texts,
        "padding_share": work.padding_share,
        "gflop_per_text": flops / len(train) / 1e9,
        "final_accuracy": timeline.evaluations[-1].accuracy if timeline.evaluations else None,
        "num_validation": len(trainer.eval_dataset),
        "num_validation_all": len(validation),
    }


def _rows(texts: TokenizedTexts, tokenizer: Any, longest: int | None) -> list[dict[str, Any]]:
    """Return the texts as Python lists, the form that the collators take, padded to `longest` tokens unless None."""
    rows = []
    for row in texts:
        encoded: dict[str, Any] = {"input_ids": row["input_ids"].tolist()}
        if longest is None:
            encoded["attention_mask"] = [1] * len(encoded["input_ids"])
        else:
            encoded = dict(tokenizer.pad(encoded, padding="max_length", max_length=longest))
        rows.append(encoded | {"label": int(row["label"])})
    return rows


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}
