"""The classifier: any transformers encoder, one vector per text, scaled to a fixed length, a linear head.

Importing this module registers the architecture, so that transformers' AutoModelForSequenceClassification and
pipeline("text-classification") open its checkpoints without remote code.

Shapes: b texts, t tokens, d hidden size, c intents.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import ModelOutput

from intents.first_token import shorten_last_layer
from intents.probing import check_first_token, check_padding


class IntentClassifierConfig(PreTrainedConfig):
    """Configuration: the encoder's own, how its states are pooled, and the length that the features are scaled to."""

    model_type = "intent-classifier"
    sub_configs_defaults = {"encoder": SubConfigSpec(config_class=AutoConfig, model_type="bert")}

    encoder: Any = None  # the encoder's configuration, or its dict
    pooling: str = "mean"  # of the last hidden states of all tokens, or "first": that of the first token
    feature_scale: float = 10.0


@dataclass
class IntentClassifierOutput(ModelOutput):
    """Logits, (b, c), the features that they were computed from, (b, d), and the loss where labels were given."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    features: torch.Tensor | None = None


class IntentClassifier(PreTrainedModel):
    """The encoder's last hidden states as one vector, scaled to length `feature_scale`, and a linear head.

    The vector is their mean over the text's tokens, or the state of the first token, as `pooling` says. Mean pooling
    and the fixed length follow Reimers and Gurevych 2019 (Sentence-BERT) and Wang et al. 2017 (NormFace): with features
    pretrained for cosine similarity they beat the [CLS] pooler on short texts.
    """

    config_class = IntentClassifierConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: IntentClassifierConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.set_encoder(AutoModel.from_config(config.encoder, **_without_pooler(config.encoder)))
        self.classifier = nn.Linear(config.encoder.hidden_size, config.num_labels)
        self.post_init()

    def set_encoder(self, encoder: PreTrainedModel) -> None:
        """Put `encoder` beneath the head."""
        self.encoder = encoder
        if self.config.pooling == "first":
            shorten_last_layer(encoder)

    def pool(self, hidden_btd: torch.Tensor, mask_bt: torch.Tensor) -> torch.Tensor:
        """Return one feature vector per text, (b, d), of length `feature_scale`."""
        if self.config.pooling == "first":
            pooled_bd = hidden_btd[:, 0]
        else:
            weights_bt1 = mask_bt.unsqueeze(-1).to(hidden_btd.dtype)
            pooled_bd = (hidden_btd * weights_bt1).sum(1) / weights_bt1.sum(1).clamp(min=1)
        return nn.functional.normalize(pooled_bd.float(), dim=-1) * self.config.feature_scale

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> IntentClassifierOutput:
        """Return logits, (b, c), and the cross-entropy where `labels` are given."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is not None:
            kwargs["token_type_ids"] = token_type_ids
        hidden_btd = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        features_bd = self.pool(hidden_btd, attention_mask)
        logits_bc = self.classifier(features_bd)
        loss = None if labels is None else nn.functional.cross_entropy(logits_bc.float(), labels)
        return IntentClassifierOutput(loss=loss, logits=logits_bc, features=features_bd)


def _without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """Return the argument that leaves out the [CLS] pooler, which this head never uses, where there is one."""
    model_class = transformers.MODEL_MAPPING[type(config)]
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}


def build_classifier(encoder_dir: Path, intents: Sequence[str], head: str, feature_scale: float) -> PreTrainedModel:
    """Return an untrained classifier of `intents` on the pretrained encoder in `encoder_dir`, in fp32.

    `head` is "mean" or "first" (the pooling of IntentClassifier), or "native" (the architecture's own head).

    Raises:
        ValueError: the weights do not fit the encoder's config.json, or the encoder cannot classify with that head.

    """
    names = {"id2label": dict(enumerate(intents)), "label2id": {intent: i for i, intent in enumerate(intents)}}
    # A head, and what pools for it, may be lacking or be one for other labels, of a sentiment model for instance.
    loading: dict[str, Any] = {
        "trust_remote_code": False,
        "dtype": torch.float32,
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    if head == "native":
        model, found = AutoModelForSequenceClassification.from_pretrained(encoder_dir, **loading, **names)
        _check_all_loaded(found, f"{model.base_model_prefix}.")
        _start_anew(model)
    else:
        encoder_config = AutoConfig.from_pretrained(encoder_dir, trust_remote_code=False)
        model = IntentClassifier(
            IntentClassifierConfig(encoder=encoder_config, pooling=head, feature_scale=feature_scale, **names)
        )
        encoder, found = AutoModel.from_pretrained(encoder_dir, **loading, **_without_pooler(encoder_config))
        _check_all_loaded(found, "")
        model.set_encoder(encoder)
        if head == "first":
            check_first_token(model.encoder)
    check_padding(model, head)
    model.config.problem_type = "single_label_classification"
    return model


def _check_all_loaded(found: dict[str, Any], prefix: str) -> None:
    """Make sure that no weight of the encoder, whose names begin with `prefix`, is left as random as it was made."""
    lacking = [(name, "are not there") for name in found["missing_keys"]]
    lacking += [
        (name, f"are {tuple(stored)}, not {tuple(wanted)}") for name, stored, wanted in found["mismatched_keys"]
    ]
    random = sorted((name, what) for name, what in lacking if name.startswith(prefix) and "pooler" not in name)
    if random:
        name, what = random[0]
        raise ValueError(
            f"encoder.name: {len(random)} of the encoder's tensors do not fit its config.json: the weights of {name}"
            f" {what}; take an encoder whose weights and config.json belong together"
        )


def _start_anew(model: PreTrainedModel) -> None:
    """Give the layer whose outputs are the logits random weights: those it was loaded with mean other labels."""
    linear = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(f"{model.base_model_prefix}.")
    ]
    last = [module for module in linear if module.out_features == model.config.num_labels][-1]
    nn.init.normal_(last.weight, std=getattr(model.config, "initializer_range", 0.02))
    if last.bias is not None:
        nn.init.zeros_(last.bias)


def load_classifier(folder: Path) -> PreTrainedModel:
    """Return the trained classifier in `folder`, in fp32, in evaluation mode.

    Raises:
        ValueError: there is none, or its weights are damaged or lack a part.

    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no classifier (no config.json): run `dvc repro`, or `dvc pull {folder}`")
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except SafetensorError as error:
        raise ValueError(f"{folder}: the weights are damaged ({error}); fetch or train them anew") from None
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{folder} holds no trained classifier: its weights lack {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}; name the folder of a classifier, not of an encoder"
        )
    return model.eval()


AutoConfig.register(IntentClassifierConfig.model_type, IntentClassifierConfig)
AutoModelForSequenceClassification.register(IntentClassifierConfig, IntentClassifier)
