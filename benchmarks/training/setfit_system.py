"""SetFit (Tunstall et al. 2022): contrastive training of the encoder on pairs of texts, then logistic regression.

At growing numbers of steps the head is fitted and validation is scored, which SetFit itself does only in the end. What
counts as its time to an accuracy is the training so far and that one fit: as if it had been told when to stop.
"""

import tempfile
import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
from transformers import TrainerCallback

from benchmarks.training.flops import EncoderShape, training_flops
from benchmarks.training.jobs import Job
from benchmarks.training.timeline import Evaluation, Timeline, WorkCounter
from intents.batching import TokenizedTexts
from intents.params import read_params

_FIRST_EVALUATION, _GROWTH = 25, 1.5  # steps, and by what they grow to the next evaluation
WARM_UP = 5


class FitAndScore(TrainerCallback):
    """Fits the head and scores validation, before training and then ever less often."""

    def __init__(self, timeline: Timeline, model: SetFitModel, train: Dataset, validation: Dataset) -> None:
        self.timeline, self.model, self.train, self.validation = timeline, model, train, validation
        self.next_step = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Score the encoder as pretrained."""
        self.timeline.begun()
        self.score()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score, if it is time."""
        if state.global_step in (self.next_step, state.max_steps):
            self.score()

    def on_save(self, *_: Any, **__: Any) -> None:
        """Note a checkpoint."""
        self.timeline.paused("checkpoint")

    def score(self) -> None:
        """Fit the head on the encoder as it is now, score validation, and set the clock back."""
        started = time.perf_counter()
        self.model.fit(list(self.train["text"]), list(self.train["label"]), num_epochs=1)
        fitted = time.perf_counter()
        accuracy = self.accuracy()
        fit_s, predict_s = fitted - started, time.perf_counter() - fitted
        self.timeline.paused("evaluation")
        step, trained_s = len(self.timeline.steps_s), self.timeline.trained_s
        self.timeline.evaluations.append(Evaluation(step, accuracy, trained_s + fit_s, trained_s + fit_s + predict_s))
        self.next_step = max(_FIRST_EVALUATION, int(step * _GROWTH))

    def accuracy(self) -> float:
        """Return the share of the validation texts that are answered rightly."""
        answers = np.asarray(self.model.predict(list(self.validation["text"]), use_labels=False))
        return float(np.mean(answers == np.asarray(self.validation["label"])))


def setfit(job: Job) -> dict[str, Any]:
    """Train with SetFit's defaults but for the learning rate of the encoder and the number of steps."""
    train, validation = (_texts(job, split) for split in ("train", "validation"))
    lengths = TokenizedTexts(job.split("tokenized", "train")).lengths
    # Normalised, as all-MiniLM-L6-v2 is published for sentence-transformers.
    model = SetFitModel.from_pretrained(job.encoder_dir, normalize_embeddings=True)
    model.model_body.max_seq_length = read_params()["tokenize"]["max_length"]
    timeline, work = Timeline(), WorkCounter()
    transformer = model.model_body[0]
    transformer.register_forward_pre_hook(work, with_kwargs=True)
    scoring = FitAndScore(timeline, model, train, validation)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            body_learning_rate=job.learning_rate,
            max_steps=job.max_steps,
            report_to="none",
            show_progress_bar=False,
            seed=0,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=train, callbacks=[scoring])
        with timeline.follow():
            trainer.train()
    shape = EncoderShape.of(transformer.auto_model.config)
    return {
        **timeline.as_dict(),
        "steady_step_s": timeline.steady_step_s(WARM_UP),
        "num_steps": len(timeline.steps_s),
        "texts_per_step": work.texts / len(timeline.steps_s),
        "useful_tokens_per_text": work.useful_tokens / work.texts,
        "padding_share": work.padding_share,
        "gflop_per_text": training_flops(lengths, shape, "mean", num_intents=0) / len(lengths) / 1e9,
        "final_accuracy": timeline.evaluations[-1].accuracy,
        "num_validation": len(validation),
    }


def _texts(job: Job, split: str) -> Dataset:
    table = pq.read_table(job.split("prepared", split), columns=["text", "label"])
    return Dataset.from_dict(table.to_pydict())
