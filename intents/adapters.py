"""LoRA (Hu et al. 2021): small matrices beside the linear layers of a frozen encoder, and a head, are all that learns.

peft does it; it and four_bit.py need the extra `lora`.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from intents.classifier import build_classifier
from intents.files import sha256_of, write_json
from intents.four_bit import require, round_encoder
from intents.layers import below_layers, linear_layers, lowest_layers

NOTE = "adapter.json"  # in the folder of an adapter: what built the classifier around it
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's names


@dataclass(frozen=True)
class LoraSettings:
    """Size and place of the adapter; params.yaml explains each."""

    rank: int
    alpha: float
    dropout: float
    targets: str | Sequence[str]
    freeze: str | int


@contextmanager
def _quiet() -> Iterator[None]:
    """Swallow the warning about a name in transformers that peft still uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that make up the head: all beside the encoder, and an encoder's [CLS] pooler."""
    children = dict(model.named_children())
    prefix = model.base_model_prefix
    names = [name for name, child in children.items() if name != prefix and list(child.parameters())]
    return names + ([f"{prefix}.pooler"] if getattr(children[prefix], "pooler", None) is not None else [])


def target_layers(model: PreTrainedModel, targets: str | Sequence[str], freeze: str | int) -> list[str]:
    """Return the names of the linear layers that get an adapter: "all", or those whose last name is a target.

    Those within the lowest layers that `freeze` leaves as pretrained get none.

    Raises:
        ValueError: there is no linear layer, `freeze` leaves none, or a target is the name of none.

    """
    every = linear_layers(model)
    if not every:
        raise ValueError(
            f"train.method: {model.base_model.config.model_type} encoders have no linear layers to adapt; use full"
        )
    lowest = [] if freeze == "none" else [*below_layers(model), *lowest_layers(model, freeze)]
    frozen = {module for layer in lowest for module in layer.modules()}
    layers = [layer for layer in every if model.get_submodule(layer) not in frozen]
    if not layers:
        raise ValueError(f"train.freeze={freeze} leaves no layer of the encoder to adapt; set a lower number")
    if isinstance(targets, str):
        return layers
    kinds = sorted({layer.rpartition(".")[2] for layer in layers})
    for target in targets:
        if target not in kinds:
            raise ValueError(
                f"train.lora_targets: this encoder has no linear layer {target!r}; it has: {', '.join(kinds)} (or all)"
            )
    return [layer for layer in layers if layer.rpartition(".")[2] in targets]


def add_adapter(model: PreTrainedModel, lora: LoraSettings, encoder_dir: Path) -> Any:
    """Put an untrained adapter into `model`, in place, leave only it and the head to be trained, and return it."""
    peft = require("peft")
    manifest = encoder_dir / "manifest.json"
    encoder = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {"source": str(encoder_dir)}
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_layers(model, lora.targets, lora.freeze),
        modules_to_save=head_modules(model),
    )
    with _quiet():
        adapter = peft.get_peft_model(model, config)
    # Not the folder that the encoder was read from: it says nothing to whoever is sent the adapter.
    config.base_model_name_or_path, config.revision = encoder["source"], encoder.get("revision")
    return adapter


def save_adapter(adapter: Any, folder: Path) -> None:
    """Write the adapter and its head to `folder` as peft does; the same adapter gives the same bytes."""
    import safetensors.torch

    peft = require("peft")
    state = peft.get_peft_model_state_dict(adapter, save_embedding_layers=False)  # "auto" would ask the Hub
    state = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    safetensors.torch.save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    adapter.peft_config["default"].save_pretrained(str(folder))
    config_path = folder / CONFIG
    config = json.loads(config_path.read_text(encoding="utf-8"))
    # peft writes sets in the order of their hashes, which differs from one process to the next.
    config["target_modules"] = sorted(config["target_modules"])
    write_json(config_path, config | {"inference_mode": True})


def encoder_weights(encoder_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights in `encoder_dir`: names and shapes fit many an encoder."""
    return {path.name: sha256_of(path) for path in sorted(encoder_dir.glob("model*.safetensors"))}


def load_adapted(encoder_dir: Path, folder: Path) -> PreTrainedModel:
    """Return the classifier, in fp32, that the adapter in `folder` and the pretrained encoder in `encoder_dir` make.

    An adapter of qlora is merged into what 4 bits leave of the encoder: it has learnt to make up for the loss.

    Raises:
        ValueError: `folder` holds no adapter, or one for another encoder.

    """
    peft = require("peft")
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{folder} holds no adapter (no {NOTE}): run `dvc repro train`, or `dvc pull {folder}`"
        ) from None
    if note["method"] == "full":
        raise ValueError(f"{folder} holds no adapter: train.method was full, models/classifier is the whole result")
    if encoder_weights(encoder_dir) != note["encoder_weights"]:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        source = f"{config['base_model_name_or_path']!r}, revision {config['revision']}"
        raise ValueError(f"the adapter in {folder} is for another encoder than that in {encoder_dir}: {source}")
    model = build_classifier(encoder_dir, note["intents"], note["head"], note["feature_scale"])
    if note["method"] == "qlora":
        round_encoder(model)
    with _quiet():
        adapted = peft.PeftModel.from_pretrained(model, str(folder))
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged.eval()
