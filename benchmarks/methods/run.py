"""The train section of params.yaml against variants of it, over seeds, scored on validation: reasons for the defaults.

Reads models/encoder and data/tokenized/{train,validation}.parquet, adds a table to benchmarks/methods/results.md. The
test split is not touched: this is where settings are chosen.

    python -m benchmarks.methods.run                          all variants, 3 seeds
    python -m benchmarks.methods.run --rows 400 --seeds 5     fewer training rows, more seeds
    python -m benchmarks.methods.run --only default lora
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from tqdm import tqdm

from benchmarks.machine import describe
from intents.batching import TokenizedTexts
from intents.cli import run
from intents.files import write_text
from intents.methods import ModelSettings, build_trainee, finish
from intents.params import read_params
from intents.tables import intents_of
from intents.tokenizing import load_tokenizer, max_length_of
from intents.trainer import score
from intents.training import fine_tune
from intents.training_settings import TrainingSettings

ENCODER_DIR = Path("models/encoder")
TOKENIZED_DIR = Path("data/tokenized")
RESULTS_PATH = Path(__file__).with_name("results.md")
HEADER = "# Methods and settings of training, on validation\n"
LORA = {"method": "lora", "learning_rate": 1e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "cosine": {"scheduler": "cosine"},
    "constant_with_warmup": {"scheduler": "constant_with_warmup"},
    "inverse_sqrt": {"scheduler": "inverse_sqrt"},
    "layer_decay_0.9": {"layer_decay": 0.9},
    "layer_decay_0.8": {"layer_decay": 0.8},
    "balanced": {"class_weights": "balanced"},
    "embeddings_too": {"freeze": "none"},
    "two_layers_frozen": {"freeze": 2},
    "no_label_smoothing": {"label_smoothing": 0.0},
    "no_contrast": {"contrastive_weight": 0.0},
    "no_average": {"ema_decay": 0.0},
    "no_dropout": {"dropout": 0.0},
    "native_head": {"head": "native", "contrastive_weight": 0.0},
    "not_adversarial": {"adversarial_norm": 0.0},
    "batch_32": {"batch_size": 32, "learning_rate": 2e-4, "ema_decay": 0.99},
    "lora": LORA,
    "lora_rate_3e-4": LORA | {"learning_rate": 3e-4},
    "lora_rate_3e-3": LORA | {"learning_rate": 3e-3},
    "lora_rank_4": LORA | {"lora_rank": 4, "lora_alpha": 8},
    "lora_rank_64": LORA | {"lora_rank": 64, "lora_alpha": 128},
    "lora_no_dropout": LORA | {"lora_dropout": 0.0},
    "lora_query_value": LORA | {"lora_targets": ["query", "value"]},
    "qlora": LORA | {"method": "qlora"},
}


def measure(changes: Mapping[str, Any], train_path: Path, validation: TokenizedTexts, seed: int) -> dict[str, float]:
    """Return validation metrics, seconds of training and the number of trained parameters of one training."""
    params = read_params()["train"] | changes | {"seed": seed}
    model_settings, settings = (
        chosen(**{field.name: params[field.name] for field in fields(chosen)})
        for chosen in (ModelSettings, TrainingSettings)
    )
    transformers.set_seed(seed)
    pad_token_id = load_tokenizer(ENCODER_DIR, max_length_of(train_path)).pad_token_id
    trainee = build_trainee(ENCODER_DIR, intents_of(train_path), model_settings)
    train = TokenizedTexts(train_path)
    started = time.perf_counter()
    result = fine_tune(trainee.model, train, validation, pad_token_id, settings, lambda values, step: None)
    seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        shipped = finish(trainee, ENCODER_DIR, Path(folder) / "adapter")
    scores = score(shipped, train, validation, pad_token_id, settings.precision)
    merging = scores["log_loss"] - result.best["log_loss"]
    return scores | {"seconds": seconds, "trained": trainee.num_parameters["trainable"], "merging": merging}


def subset(path: Path, num_rows: int | None, folder: Path) -> Path:
    """Write `num_rows` rows of the table at `path`, drawn at random, to `folder`; None: all."""
    table = pq.read_table(path)
    if num_rows is not None:
        table = table.take(np.random.default_rng(0).permutation(len(table))[:num_rows])
    pq.write_table(table, folder / "train.parquet")
    return folder / "train.parquet"


def section(measured: Mapping[str, Sequence[Mapping[str, float]]], num_rows: int, seeds: int) -> str:
    """Return the Markdown of this measurement."""
    machine = describe()
    lines = [
        f"## {machine['date']}, {num_rows} training rows, {seeds} seeds",
        "",
        f"{machine['processor']}, commit {machine['commit']}. Mean over seeds (lowest to highest); log-loss in nats,"
        " lower is better. merging: what putting the adapter into the encoder adds to the log-loss.",
        "",
        "| variant | settings | log-loss | accuracy | macro-F1 | merging | trained | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in measured.items():
        changes = ", ".join(f"{key} {value}" for key, value in VARIANTS[name].items()) or "as in params.yaml"
        figures = [_spread([run[metric] for run in runs]) for metric in ("log_loss", "accuracy", "macro_f1")]
        mean = {metric: statistics.fmean(run[metric] for run in runs) for metric in ("merging", "trained", "seconds")}
        lines.append(
            f"| {name} | {changes} | {' | '.join(figures)} | {mean['merging']:+.4f} | {mean['trained']:,.0f} |"
            f" {mean['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    """Train every variant with every seed, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="training rows, drawn at random (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    arguments = parser.parse_args()
    lacking = [name for name in ("peft", "bitsandbytes") if not find_spec(name)]
    if lacking and any("method" in VARIANTS[name] for name in arguments.only):
        raise ValueError(
            f"variants with lora need {lacking[0]}: pip install -c constraints.txt -e '.[lora]',"
            " or name others with --only"
        )
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    validation = TokenizedTexts(TOKENIZED_DIR / "validation.parquet")
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.only}
    earlier = RESULTS_PATH.read_text(encoding="utf-8").removeprefix(HEADER) if RESULTS_PATH.exists() else ""
    with tempfile.TemporaryDirectory() as folder:
        train_path = subset(TOKENIZED_DIR / "train.parquet", arguments.rows, Path(folder))
        num_rows = len(TokenizedTexts(train_path))
        for seed in range(arguments.seeds):
            for name in tqdm(arguments.only, desc=f"seed {seed}", file=sys.stderr):
                measured[name].append(measure(VARIANTS[name], train_path, validation, seed))
            table = section(measured, num_rows, seed + 1)
            write_text(RESULTS_PATH, f"{HEADER}\n{table}{earlier}")  # what comes next may fail
    print(table)


if __name__ == "__main__":
    run(main)
