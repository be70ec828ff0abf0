"""Fine-tunes a classifier: a few lines around the trainer."""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from intents.attention import trainable_attention
from intents.batching import TokenizedTexts
from intents.callbacks import Progress
from intents.checkpoints import Checkpoints
from intents.dropout import quick_dropout
from intents.normalising import narrow_norms
from intents.packing import packed
from intents.parallel import from_all, from_first, process_index
from intents.precision import resolve_precision
from intents.trainer import IntentTrainer
from intents.training_settings import TrainingSettings
from intents.vocabulary import only_used_rows


@dataclass(frozen=True)
class TrainingResult:
    """What happened: validation metrics after each epoch, the best of them, and speed."""

    curves: list[dict[str, float]]
    best: dict[str, float]
    examples_per_second: float
    useful_tokens_per_second: float
    padding_share: float


def fine_tune(
    model: PreTrainedModel,
    train: TokenizedTexts,
    validation: TokenizedTexts,
    pad_token_id: int,
    settings: TrainingSettings,
    log: Callable[[dict[str, float], int], None],
    checkpoints: Checkpoints | None = None,
) -> TrainingResult:
    """Fine-tune `model` in place and leave it at its best state by `metric_for_best` on `validation`.

    `log` is called with the metrics of each evaluation and the optimizer step. With `checkpoints` training goes on from
    the newest of them; speed and padding are then those since.

    Of several processes (see intents.parallel) each calls this; `log` and `checkpoints` are those of the first.

    Raises:
        ValueError: training diverged before its first evaluation, or a step does not fit into the GPU's memory.

    """
    precision = resolve_precision(settings.precision, model)
    with tempfile.TemporaryDirectory() as scratch:
        # It moves the model to its device, by which the others choose what they do.
        trainer = IntentTrainer(model, train, validation, pad_token_id, settings, scratch)
        with (
            only_used_rows(model, train),
            trainable_attention(model, precision),
            narrow_norms(model, precision),
            quick_dropout(model),
            packed(model) if trainer.packs else nullcontext(),
            _listed_parameters(model),
        ):
            try:
                _run(trainer, checkpoints, log, scratch)
            except torch.OutOfMemoryError:
                raise ValueError(
                    f"the GPU's memory is too small for train.batch_size={settings.batch_size} at once; raise"
                    " train.gradient_accumulation, or set train.gradient_checkpointing to true"
                ) from None
            finally:
                trainer.forget_passes()
    seconds, counted = trainer.training_seconds, trainer.collate
    counts = from_all([counted.examples, counted.useful_tokens, counted.padded_tokens])
    examples, useful_tokens, padded_tokens = (sum(column) for column in zip(*counts, strict=True))
    return TrainingResult(
        curves=trainer.best.curves,
        best=trainer.best.metrics,
        examples_per_second=examples / seconds,
        useful_tokens_per_second=useful_tokens / seconds,
        padding_share=1 - useful_tokens / padded_tokens,
    )


@contextmanager
def _listed_parameters(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, asking `model` for its parameters walks no tree of modules, as the Trainer does twice a step."""
    parameters = list(model.parameters())
    model.parameters = lambda recurse=True: iter(parameters)
    try:
        yield
    finally:
        del model.parameters


def _run(
    trainer: IntentTrainer, checkpoints: Checkpoints | None, log: Callable[[dict[str, float], int], None], scratch: str
) -> None:
    """Train to the end, and leave the model at its best state."""
    if process_index() == 0:
        trainer.add_callback(Progress(trainer.best, log))
    if from_first(lambda: checkpoints is not None):
        trainer.train_resumable(checkpoints, scratch)
    else:
        trainer.train()
    if not math.isfinite(trainer.best.metrics["log_loss"]):
        raise ValueError(
            "training diverged: the classifier's answers are no numbers; lower train.learning_rate or"
            " train.head_learning_rate"
        )
    trainer.best.restore(trainer.model)
