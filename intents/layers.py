"""Parts of an encoder of any architecture: embeddings, layers, linear layers, dropout; and what stays as pretrained."""

from torch import nn
from transformers import PreTrainedModel


def freeze(model: PreTrainedModel, lowest: str | int) -> None:
    """Leave out of training: "none", the "embeddings", or the embeddings and that many of the lowest layers.

    Raises:
        ValueError: the encoder has fewer layers.

    """
    if lowest == "none":
        return
    for module in (*below_layers(model), *lowest_layers(model, lowest)):
        module.requires_grad_(False)


def lowest_layers(model: PreTrainedModel, lowest: str | int) -> list[nn.Module]:
    """Return the layers that `train.freeze` leaves as pretrained: that many of the lowest, none for its words.

    Raises:
        ValueError: the encoder has fewer layers, or they cannot be told apart.

    """
    if not isinstance(lowest, int):
        return []
    layers = encoder_layers(model, "train.freeze", "embeddings or none")
    if lowest > len(layers):
        raise ValueError(
            f"train.freeze: the encoder has {len(layers)} layers, got {lowest}; set a lower number, embeddings or none"
        )
    return list(layers[:lowest])


def embeddings_of(model: PreTrainedModel) -> nn.Module:
    """Return the encoder's embeddings: those of words, and of positions where they are kept together."""
    found = getattr(model.base_model, "embeddings", None)
    return found if isinstance(found, nn.Module) else model.base_model.get_input_embeddings()


# What some encoders keep outside of their embeddings and layers: positions, and what makes the embeddings wider.
_BESIDE_EMBEDDINGS = (
    "position_embeddings",
    "lang_embeddings",
    "layer_norm_emb",
    "entity_embeddings",
    "embeddings_project",
    "encoder.embedding_hidden_mapping_in",
    "wpe",
    "embed_positions",
    "encoder.embed_positions",
    "encoder.rel_embeddings",
    "encoder.relative_attention_bias",
)


def below_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return what a text passes on its way to the encoder's first layer: the embeddings, and what belongs to them."""
    modules = dict(model.base_model.named_modules())
    return [embeddings_of(model), *(modules[name] for name in _BESIDE_EMBEDDINGS if name in modules)]


def encoder_layers(model: PreTrainedModel, setting: str, instead: str) -> nn.ModuleList:
    """Return the encoder's layers, the lowest first.

    Raises:
        ValueError: they cannot be told apart (ALBERT's share their weights, FlauBERT has no modules for them); it names
            the `setting` that asks for them, and what to set it to `instead`.

    """
    config = model.base_model.config
    lists = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    found = [module for module in lists if len(module) == config.num_hidden_layers]
    if len(found) == 1:
        return found[0]
    raise ValueError(f"{setting}: the layers of {config.model_type} encoders cannot be told apart; set it to {instead}")


# Modules of ModernBERT, XLM, BART, ESM and Longformer keep the number itself, under these names, and no nn.Dropout.
_SHARES = ("dropout", "attention_dropout", "activation_dropout", "dropout_prob")


def set_dropout(model: PreTrainedModel, share: float) -> None:
    """Drop that share of the activations, of attention and of the head's inputs while training, 0 to 1."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        for name in _SHARES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of the encoder's linear layers, without those of a pooler."""
    prefix = f"{model.base_model_prefix}."
    return [
        prefix + name
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[0] != "pooler"
    ]
