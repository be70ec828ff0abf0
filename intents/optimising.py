"""Which weights learn how fast, and which examples count how much."""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from intents.layers import below_layers, encoder_layers


def parameter_groups(
    model: PreTrainedModel,
    decayed: Collection[str],
    learning_rate: float,
    head_learning_rate: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return an optimizer's groups of the parameters that are trained.

    The encoder learns at `learning_rate`, each layer at `layer_decay` times the rate of the one above it (Howard and
    Ruder 2018, ULMFiT), all else at `head_learning_rate`. Parameters named in `decayed` have `weight_decay`.
    """
    scale = {id(parameter): 1.0 for parameter in model.base_model.parameters()}
    if layer_decay != 1:
        scale |= _depth_scales(model, layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_encoder = id(parameter) in scale
            rate = learning_rate * scale[id(parameter)] if in_encoder else head_learning_rate
            groups.setdefault((rate, weight_decay if name in decayed else 0.0), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def _depth_scales(model: PreTrainedModel, layer_decay: float) -> dict[int, float]:
    """Return the factor of every parameter below the top layer, by id; the embeddings count as the lowest layer."""
    parts = [nn.ModuleList(below_layers(model)), *encoder_layers(model, "train.layer_decay", "1")]
    depths = range(len(parts) - 1, -1, -1)
    return {id(p): layer_decay**depth for depth, part in zip(depths, parts, strict=True) for p in part.parameters()}


def balanced_weights(labels_n: NDArray[np.int64], num_labels: int) -> torch.Tensor:
    """Return a weight per intent, (num_labels,): inverse to its number of examples, 1 on average over the examples.

    An intent without examples has none that its weight could count, and gets 0.
    """
    counts = np.bincount(labels_n, minlength=num_labels)
    weights = np.divide(len(labels_n), counts * np.count_nonzero(counts), where=counts > 0, out=np.zeros(num_labels))
    return torch.from_numpy(weights).float()
