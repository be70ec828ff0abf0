"""How to fine-tune, and what transformers' Trainer is told of it."""

from dataclasses import dataclass

import torch
from transformers import TrainingArguments

from intents.batching import num_batches
from intents.parallel import meet


@dataclass(frozen=True)
class TrainingSettings:
    """How to fine-tune; the meaning of each is explained in params.yaml."""

    method: str
    num_epochs: int
    min_steps: int
    batch_size: int
    gradient_accumulation: int
    gradient_checkpointing: bool
    learning_rate: float
    head_learning_rate: float
    layer_decay: float
    scheduler: str
    warmup_share: float
    weight_decay: float
    class_weights: str
    label_smoothing: float
    contrastive_weight: float
    contrastive_temperature: float
    ema_decay: float
    max_grad_norm: float
    adversarial_norm: float
    precision: str
    metric_for_best: str
    patience: int
    seed: int


def passes_per_epoch(num_texts: int, settings: TrainingSettings) -> int:
    """Return how often an epoch passes over the texts: once, or as often as `min_steps` in all of them take."""
    once = settings.num_epochs * num_batches(num_texts, settings.batch_size)
    return max(1, -(-settings.min_steps // once))


def training_arguments(settings: TrainingSettings, precision: str, scratch_dir: str) -> TrainingArguments:
    """Return what transformers' Trainer is to know of them; several processes find one another here."""
    meet()
    arguments = TrainingArguments(
        output_dir=scratch_dir,
        num_train_epochs=settings.num_epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        activation_checkpointing=settings.gradient_checkpointing,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_share,
        max_grad_norm=settings.max_grad_norm,
        bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # it waits for the GPU at every step
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        remove_unused_columns=False,
        ddp_find_unused_parameters=True,  # some encoders have such, and recomputing activations would switch it off
        ddp_broadcast_buffers=False,  # they never change, and may be as large as the embedding table
    )
    # Several GPUs that a process may see are not to share its batches (nn.DataParallel): it trains on one.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
