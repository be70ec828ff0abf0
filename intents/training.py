"""Fine-tuning with transformers' Trainer and what it lacks: length buckets, a head's rate, best state in memory."""

import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from intents.batching import BucketBatchSampler, PaddingCollator, TokenizedTexts
from intents.headline import headline_metrics
from intents.predicting import predict_logits


@dataclass(frozen=True)
class TrainingSettings:
    """How to fine-tune; the meaning of each is explained in params.yaml."""

    num_epochs: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    warmup_share: float
    label_smoothing: float
    max_grad_norm: float
    precision: str
    metric_for_best: str
    patience: int
    seed: int


@dataclass
class TrainingResult:
    """What happened: validation metrics after each epoch, the best of them, and speed."""

    curves: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    examples_per_second: float = 0.0
    useful_tokens_per_second: float = 0.0
    padding_share: float = 0.0


def has_bfloat16() -> bool:
    """Return whether this machine multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_precision(precision: str) -> str:
    """Return "bf16" or "fp32": `precision` itself, or for "auto" what suits the hardware."""
    if precision == "auto":
        return "bf16" if has_bfloat16() else "fp32"
    return precision


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Return how many parameters are trained, and how many there are."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"trainable": sum(size for size, trained in sizes if trained), "all": sum(size for size, _ in sizes)}


def fine_tune(
    model: PreTrainedModel,
    train: TokenizedTexts,
    validation: TokenizedTexts,
    pad_token_id: int,
    settings: TrainingSettings,
    log: Callable[[dict[str, float], int], None],
) -> TrainingResult:
    """Fine-tune `model` in place and leave it at its best state by `metric_for_best` on `validation`.

    `log` is called with the metrics of each evaluation and the optimizer step.
    """
    result = TrainingResult()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = IntentTrainer(model, train, validation, pad_token_id, settings, scratch)
        trainer.add_callback(Progress(trainer.best, log))
        trainer.train()
    result.curves, result.best = trainer.best.curves, trainer.best.metrics
    trainer.best.restore(model)
    seconds, counted = trainer.training_seconds, trainer.collate
    result.examples_per_second = counted.examples / seconds
    result.useful_tokens_per_second = counted.useful_tokens / seconds
    result.padding_share = 1 - counted.useful_tokens / counted.padded_tokens
    return result


class BestState(TrainerCallback):
    """Keeps the best weights in memory and stops after `patience` evaluations without a better one."""

    def __init__(self, metric: str, patience: int) -> None:
        self.metric = metric
        self.patience = patience
        self.curves: list[dict[str, float]] = []
        self.metrics: dict[str, float] = {}
        self._state: dict[str, torch.Tensor] = {}
        self._worse = 0

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Compare the evaluation that just ended with the best so far."""
        found = {name.removeprefix("eval_"): value for name, value in kwargs["metrics"].items()}
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        point = {
            "epoch": state.epoch or 0.0,
            "step": state.global_step,
            "train_loss": losses[-1] if losses else math.nan,
        }
        point |= {name: found[name] for name in ("accuracy", "macro_f1", "log_loss")}
        self.curves.append(point)
        if not self.metrics or self._is_better(point[self.metric], self.metrics[self.metric]):
            self.metrics = point
            self._state = {name: value.detach().clone() for name, value in kwargs["model"].state_dict().items()}
            self._worse = 0
            return
        self._worse += 1
        if self._worse >= self.patience:
            control.should_training_stop = True

    def _is_better(self, value: float, best: float) -> bool:
        return value < best if self.metric.endswith("loss") else value > best

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back into `model`."""
        model.load_state_dict(self._state)


class Progress(TrainerCallback):
    """A progress bar, and a line per evaluation."""

    def __init__(self, best: BestState, log: Callable[[dict[str, float], int], None]) -> None:
        self._best = best
        self._log = log
        self._bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar."""
        interval = 1 if sys.stdout.isatty() else 15  # seconds; a log file needs fewer lines
        self._bar = tqdm(total=state.max_steps, unit="step", desc="train", mininterval=interval, file=sys.stdout)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Print and log the newest point of the curves."""
        point = self._best.curves[-1]
        values = "  ".join(f"{name} {value:.4f}" for name, value in point.items() if name not in ("epoch", "step"))
        mark = "  best so far" if point is self._best.metrics else ""
        self._bar.write(f"epoch {point['epoch']:g}  {values}{mark}", file=sys.stdout)
        self._log({f"validation/{name}": value for name, value in point.items() if name != "step"}, state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._bar.close()


class IntentTrainer(Trainer):
    """transformers' Trainer with length-bucketed batches, a learning rate for the head and quick evaluation."""

    optimizer: Any
    control: Any

    def __init__(
        self,
        model: PreTrainedModel,
        train: TokenizedTexts,
        validation: TokenizedTexts,
        pad_token_id: int,
        settings: TrainingSettings,
        scratch_dir: str,
    ) -> None:
        self.settings = settings
        self.validation = validation
        self.pad_token_id = pad_token_id
        self.collate = PaddingCollator(pad_token_id)
        self.best = BestState(settings.metric_for_best, settings.patience)
        self.training_seconds = 0.0
        super().__init__(
            model=model,
            args=_training_arguments(settings, scratch_dir),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=self.collate,
            compute_loss_func=self._loss,
            callbacks=[self.best],
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return batches of texts of similar length."""
        train: Any = self.train_dataset
        sampler = BucketBatchSampler(train.lengths, self.settings.batch_size, self.settings.seed)
        loader = DataLoader(train, batch_sampler=sampler, collate_fn=self.collate)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return fused AdamW; the head has its own learning rate, biases and normalisations no weight decay."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self._parameter_groups(), fused=True)
        return self.optimizer

    def _parameter_groups(self) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(self.model))
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        encoder = {id(parameter) for parameter in self.model.base_model.parameters()}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                in_encoder = id(parameter) in encoder
                rate = self.settings.learning_rate if in_encoder else self.settings.head_learning_rate
                decay = self.settings.weight_decay if name in decayed else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]

    def _loss(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        summed = nn.functional.cross_entropy(
            outputs.logits.float(), labels, label_smoothing=self.settings.label_smoothing, reduction="sum"
        )
        return summed / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and time it without the evaluations."""
        started = time.perf_counter()
        output = super().train(*args, **kwargs)
        self.training_seconds += time.perf_counter() - started
        return output

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the validation split, longest texts first, under the precision of training."""
        started = time.perf_counter()
        with self.compute_loss_context_manager():
            logits = predict_logits(self.model, self.validation, self.pad_token_id, batch_size=64)
        found = {f"eval_{name}": value for name, value in headline_metrics(self.validation.labels, logits).items()}
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self.training_seconds -= time.perf_counter() - started
        return found


def _training_arguments(settings: TrainingSettings, scratch_dir: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=scratch_dir,
        num_train_epochs=settings.num_epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_share,
        max_grad_norm=settings.max_grad_norm,
        bf16=resolve_precision(settings.precision) == "bf16",
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        remove_unused_columns=False,
    )
