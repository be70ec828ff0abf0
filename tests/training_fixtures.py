"""Encoders of every family and splits, so small that training takes a second.

A plugin that a test module names in `pytest_plugins`, and imports from (PYTEST_DONT_REWRITE).
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from intents.batching import TokenizedTexts
from intents.classifier import build_classifier
from intents.methods import ModelSettings, build_trainee, finish
from intents.predicting import predict_logits
from intents.tables import with_facts, write_table
from intents.tokenizing import SCHEMA
from intents.training import fine_tune
from intents.training_settings import TrainingSettings
from tests.conftest import REPOSITORY

INTENTS = ["open", "close", "none"]
PAD = 0
ADAPTERS = ("lora", "qlora")
FAMILIES = ("bert", "roberta", "deberta", "deberta-v2", "electra", "modernbert")
_SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": PAD}


def model_settings(method, **changes) -> ModelSettings:
    settings = {
        "head": "mean",
        "feature_scale": 10.0,
        "dropout": None,
        "freeze": "none",
        "lora_rank": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "lora_targets": "all",
        "precision": "fp32",
    }
    return ModelSettings(**(settings | {"method": method} | changes))


def training_settings(**changes) -> TrainingSettings:
    settings = {
        "method": "full",
        "num_epochs": 3,
        "min_steps": 0,
        "batch_size": 16,
        "gradient_accumulation": 1,
        "gradient_checkpointing": False,
        "learning_rate": 1e-2,
        "head_learning_rate": 1e-2,
        "layer_decay": 1.0,
        "scheduler": "linear",
        "warmup_share": 0.1,
        "weight_decay": 0.01,
        "class_weights": "none",
        "label_smoothing": 0.0,
        "contrastive_weight": 0.0,
        "contrastive_temperature": 0.1,
        "ema_decay": 0.0,
        "max_grad_norm": 1.0,
        "adversarial_norm": 0.0,
        "precision": "fp32",
        "metric_for_best": "log_loss",
        "patience": 10,
        "seed": 0,
    }
    return TrainingSettings(**(settings | changes))


def write_family(folder: Path, family: str) -> Path:
    """Write a random encoder of `family`, without dropout, to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModel

    sizes = _SIZES | {"intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if family.startswith("deberta"):
        dropout |= {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pooler_hidden_size": 32}
    if family == "electra":
        dropout |= {"embedding_size": 16}
    if family == "modernbert":
        dropout = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, **sizes, **dropout)).save_pretrained(folder)
    return folder


def write_split(path: Path, num_texts: int, seed: int, shares=(0.4, 0.35, 0.25), facts=None) -> TokenizedTexts:
    """Write texts whose words tell their intent, most of the time."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, num_texts, p=shares)
    words = [random.integers(4 + 15 * label, 19 + 15 * label, random.integers(3, 9)) for label in labels]
    ids = [[2, *text.tolist(), 3] for text in words]
    write_table(path, {"input_ids": ids, "label": labels.tolist()}, with_facts(SCHEMA, **(facts or {})))
    return TokenizedTexts(path)


class Trained:
    """A classifier trained by one method: as the trainer left it, and as it ships."""

    def __init__(self, encoder_dir, splits, folder, method, head="mean", freeze="none", **settings):
        self.encoder_dir, self.folder, self.head = encoder_dir, folder, head
        import torch

        torch.manual_seed(0)
        trainee = build_trainee(encoder_dir, INTENTS, model_settings(method, head=head, freeze=freeze))
        self.model = trainee.model
        self.before = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.trained = {name for name, value in self.model.named_parameters() if value.requires_grad}
        self.settings = training_settings(method=method, **settings)
        fine_tune(self.model, *splits, PAD, self.settings, lambda values, step: None)
        self.shipped = finish(trainee, encoder_dir, folder)

    def logits(self, model, splits):
        """Return what `model` says about the validation split."""
        import torch

        return torch.from_numpy(predict_logits(model, splits[1], PAD, batch_size=16))


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Folder of a tiny encoder of each family, by its name. Never write into them."""
    return {name: write_family(tmp_path_factory.mktemp("families") / name, name) for name in FAMILIES}


@pytest.fixture(scope="session")
def splits(tmp_path_factory):
    """A train and a validation split."""
    folder = tmp_path_factory.mktemp("splits")
    return write_split(folder / "train.parquet", 100, seed=0), write_split(folder / "validation.parquet", 40, seed=1)


@pytest.fixture
def stage_inputs(workspace, monkeypatch):
    """The inputs of stages.train, tiny, in the working directory; returns the function that changes settings."""
    from tests.tiny_encoder import write_encoder, write_examples

    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_examples(Path("examples.csv"))
    write_encoder(Path("models/encoder"), Path("examples.csv"))
    for seed, split in enumerate(("train", "validation")):
        path = Path(f"data/tokenized/{split}.parquet")
        write_split(path, 201, seed, facts={"intents": INTENTS, "max_length": 16})
    write_split(Path("data/tokenized/unlabelled.parquet"), 0, 2)
    workspace("tracking", report_to="none")
    workspace("train", precision="fp32", batch_size=8, freeze="none")
    return workspace


def start_stage():
    """Start the train stage in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.train"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def build(families):
    """Return a function that builds an untrained classifier, the same every time."""
    import torch

    def build_one(family="bert", head="mean"):
        torch.manual_seed(0)
        return build_classifier(families[family], INTENTS, head, 10.0)

    return build_one
