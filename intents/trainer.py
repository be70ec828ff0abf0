"""transformers' Trainer with what it lacks: length buckets, a head's learning rate, quick evaluation."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback

from intents.adversarial import MovedEmbeddings
from intents.averaging import AveragedWeights
from intents.batching import POOL, BucketBatchSampler, PaddingCollator, SplitBatchSampler, TokenizedTexts
from intents.callbacks import BestState
from intents.contrastive import supervised_contrastive_loss
from intents.four_bit import paged_adamw
from intents.graphed import GraphedPasses, can_record
from intents.headline import headline_metrics
from intents.optimising import balanced_weights, parameter_groups
from intents.packing import PackingCollator
from intents.parallel import (
    IGNORED,
    ShareSampler,
    from_first,
    gather_texts,
    num_processes,
    or_ignored,
    process_index,
)
from intents.precision import resolve_precision
from intents.predicting import predict_logits
from intents.resuming import ResumableTrainer
from intents.training_settings import TrainingSettings, passes_per_epoch, training_arguments

_EVALUATED_TOGETHER = {"cpu": 64, "cuda": 256}  # texts


def answer(model: PreTrainedModel, texts: TokenizedTexts, pad_token_id: int, precision: str) -> NDArray[np.float32]:
    """Return the logits of every text, (n, num_labels), under the precision of training."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=resolve_precision(precision, model) == "bf16"):
        return predict_logits(model, texts, pad_token_id, _EVALUATED_TOGETHER[model.device.type])


def score(
    model: PreTrainedModel, train: TokenizedTexts, validation: TokenizedTexts, pad_token_id: int, precision: str
) -> dict[str, float]:
    """Return the headline metrics of `model` on `validation`, under the precision of training.

    Rows of an intent that `train` lacks do not count: they must not choose the epoch. Logits that are no numbers, as a
    training that diverged leaves them, are worst by each metric.

    Raises:
        ValueError: no row is left.

    """
    logits = answer(model, validation, pad_token_id, precision)
    if not np.isfinite(logits).all():
        return {"accuracy": 0.0, "macro_f1": 0.0, "log_loss": math.inf}
    chosen = np.isin(validation.labels, train.labels)
    if not chosen.any():
        raise ValueError("no validation row has an intent that the training rows have; mend the files, or their splits")
    return headline_metrics(validation.labels[chosen], logits[chosen])


class IntentTrainer(ResumableTrainer):
    """transformers' Trainer with length-bucketed batches, a learning rate for the head and quick evaluation."""

    def __init__(
        self,
        model: PreTrainedModel,
        train: TokenizedTexts,
        validation: TokenizedTexts,
        pad_token_id: int,
        settings: TrainingSettings,
        scratch_dir: str,
    ) -> None:
        if settings.gradient_checkpointing and not any(hasattr(m, "gradient_checkpointing") for m in model.modules()):
            family = model.base_model.config.model_type
            raise ValueError(
                f"train.gradient_checkpointing: {family} encoders cannot recompute their activations; set it to false"
            )
        self.settings = settings
        self.validation = validation
        self.pad_token_id = pad_token_id
        self.collate = PaddingCollator(pad_token_id)
        self._run_passes: Callable[[dict[str, Any]], torch.Tensor] | None = None
        self.best = BestState(settings.metric_for_best, settings.patience)
        self.averaged = AveragedWeights(settings.ema_decay)
        self.training_seconds = 0.0
        super().__init__(
            model=model,
            args=training_arguments(settings, resolve_precision(settings.precision, model), scratch_dir),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=self.collate,
            compute_loss_func=self._loss,
            callbacks=[self.averaged, self.best],
        )
        self.remove_callback(PrinterCallback)
        self.packs = can_record(self.model)
        # Recomputed activations restore the state of the random numbers, which cannot be recorded.
        self._records = self.packs and not settings.gradient_checkpointing and num_processes() == 1
        if self.packs:
            num_texts = settings.batch_size / settings.gradient_accumulation / num_processes()
            self.collate = PackingCollator(pad_token_id, train.lengths, num_texts)
        self.class_weights_c = (
            balanced_weights(train.labels, model.config.num_labels).to(self.args.device)
            if settings.class_weights == "balanced"
            else None
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return batches of texts of similar length; of several processes, this one's shares of them."""
        train: Any = self.train_dataset
        settings, passes = self.settings, passes_per_epoch(len(train), self.settings)
        # Where texts share rows their lengths may differ. The same batches however many GPUs there are.
        pool = 1 if self.packs else POOL
        sampler: Any = BucketBatchSampler(train.lengths, settings.batch_size, settings.seed, passes, pool)
        if self.settings.gradient_accumulation > 1:
            sampler = SplitBatchSampler(sampler, self.settings.gradient_accumulation)
        if num_processes() > 1:
            sampler = ShareSampler(sampler)
        on_gpu = self.args.device.type == "cuda"  # which copies from pinned memory while it computes
        loader: DataLoader[Any] = DataLoader(
            train,
            batch_sampler=sampler,
            collate_fn=lambda texts: self.collate(or_ignored(texts, self.pad_token_id)),
            pin_memory=on_gpu,
        )
        # One process: accelerate's own division would fill the last batch with texts of the first.
        return prepare_data_loader(loader, self.accelerator.device, 1, 0, put_on_device=True, non_blocking=on_gpu)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return AdamW, fused; for qlora on a GPU the paged one of 8 bits."""
        if self.optimizer is None:
            groups = parameter_groups(
                self.model,
                decayed=set(self.get_decay_parameter_names(self.model)),
                learning_rate=self.settings.learning_rate,
                head_learning_rate=self.settings.head_learning_rate,
                layer_decay=self.settings.layer_decay,
                weight_decay=self.settings.weight_decay,
            )
            paged = self.settings.method == "qlora" and self.args.device.type == "cuda"
            self.optimizer = paged_adamw(groups) if paged else torch.optim.AdamW(groups, fused=True)
        return self.optimizer

    def _loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        settings = self.settings
        loss_b = nn.functional.cross_entropy(
            outputs.logits.float(), labels, label_smoothing=settings.label_smoothing, reduction="none"
        )
        if self.class_weights_c is not None:
            loss_b = loss_b * self.class_weights_c[labels.clamp(min=0)]
        summed = loss_b.sum()
        if settings.contrastive_weight:
            texts = gather_texts(outputs.features, labels)
            contrast = supervised_contrastive_loss(*texts, settings.contrastive_temperature)
            summed = summed + settings.contrastive_weight * contrast * labels.ne(IGNORED).sum()
        if settings.adversarial_norm:
            summed = summed / 2  # of two passes, whose gradients add up
        return summed / num_items_in_batch

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Add the gradients of a batch to those there are; return its loss."""
        assert isinstance(num_items_in_batch, torch.Tensor)  # the batches have labels to count
        if self._run_passes is None:
            self._run_passes = partial(self._passes, model)
            if self._records:
                self._run_passes = GraphedPasses(self.model, self._run_passes, narrow=self.args.bf16)
        return self._run_passes({**inputs, "num_items": num_items_in_batch})

    def forget_passes(self) -> None:
        """Let go of recorded passes: the Trainer refers to itself, and would hold them while others are recorded."""
        self._run_passes = None

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the Trainer adds it up for no one here, and counts the model's parameters at every step for it."""
        return 0

    def _passes(self, model: nn.Module, given: dict[str, Any]) -> torch.Tensor:
        inputs = dict(given)
        num_items = inputs.pop("num_items")
        if not self.settings.adversarial_norm:
            return super().training_step(model, inputs, num_items)
        moved = MovedEmbeddings(
            self.model, self.settings.adversarial_norm, inputs["attention_mask"], inputs.get("places")
        )
        with moved.found():
            loss = super().training_step(model, inputs, num_items)
        with moved.applied():
            return loss + super().training_step(model, inputs, num_items)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and time it without the evaluations."""
        if process_index():  # else all processes would drop the same activations, each of texts of its own
            torch.manual_seed(self.settings.seed + process_index())
        started = time.perf_counter()
        output = super().train(*args, **kwargs)
        self.training_seconds += time.perf_counter() - started
        return output

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the averaged weights on the validation split, longest texts first, under the precision of training."""
        started = time.perf_counter()
        with self.averaged.in_place():
            train: Any = self.train_dataset
            arguments = (self.model, train, self.validation, self.pad_token_id, self.settings.precision)
            metrics = from_first(lambda: score(*arguments))
            found = {f"eval_{name}": value for name, value in metrics.items()}
            self.log(found)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self.training_seconds -= time.perf_counter() - started
        return found
