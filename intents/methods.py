"""The ways to train a classifier: all weights, or an adapter on a frozen encoder, of full width or of 4 bits.

They differ before and after training alone; whatever the method, a plain classifier comes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from intents.adapters import NOTE, LoraSettings, add_adapter, encoder_weights, load_adapted, save_adapter
from intents.classifier import build_classifier
from intents.files import atomic_path, write_json
from intents.four_bit import quantise_encoder
from intents.layers import freeze, set_dropout
from intents.precision import resolve_precision


@dataclass(frozen=True)
class ModelSettings:
    """What is built, and what of it is trained; the meaning of each is explained in params.yaml."""

    head: str
    feature_scale: float
    dropout: float | None
    method: str
    freeze: str | int
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_targets: str | Sequence[str]
    precision: str


@dataclass(frozen=True)
class Trainee:
    """A classifier that is ready to be trained, its adapter (None where it has none), and what it was made of."""

    model: PreTrainedModel
    adapter: Any
    num_parameters: dict[str, int]  # trainable; all: those of the classifier to ship
    note: dict[str, Any]  # what `load_adapted` needs beside the encoder


def build_trainee(encoder_dir: Path, intents: Sequence[str], settings: ModelSettings) -> Trainee:
    """Return an untrained classifier of `intents` on the encoder in `encoder_dir`, set up for `settings.method`."""
    model = build_classifier(encoder_dir, intents, settings.head, settings.feature_scale)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    num_all = model.num_parameters()
    adapter = prepare(model, settings, encoder_dir)
    note = {"method": settings.method, "head": settings.head, "feature_scale": settings.feature_scale}
    counts = {"trainable": model.num_parameters(only_trainable=True), "all": num_all}
    return Trainee(model, adapter, counts, note | {"intents": list(intents)})


def prepare(model: PreTrainedModel, settings: ModelSettings, encoder_dir: Path) -> Any:
    """Set `model` up, in place, to be trained by `settings.method`; return its adapter, None where it has none."""
    if settings.method == "full":
        freeze(model, settings.freeze)
        return None
    if settings.method == "qlora":
        precision = resolve_precision(settings.precision, model, in_four_bits=True)
        quantise_encoder(model, torch.bfloat16 if precision == "bf16" else torch.float32)
    lora = LoraSettings(
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        targets=settings.lora_targets,
        freeze=settings.freeze,
    )
    return add_adapter(model, lora, encoder_dir)


def finish(trainee: Trainee, encoder_dir: Path, folder: Path) -> PreTrainedModel:
    """Write what training made beside the encoder to `folder`, and return the classifier to ship.

    An adapter is read back from `folder` and merged into the pretrained encoder in fp32: what ships is what anyone
    makes of the two. Without an adapter `folder` holds a note that says so, and nothing else.
    """
    model, note = trainee.model, trainee.note
    with atomic_path(folder, folder=True) as part:
        part.mkdir()
        if trainee.adapter is not None:
            save_adapter(trainee.adapter, part)
            note = note | {"encoder_weights": encoder_weights(encoder_dir)}
        write_json(part / NOTE, note)
    return model if trainee.adapter is None else load_adapted(encoder_dir, folder).to(model.device)
