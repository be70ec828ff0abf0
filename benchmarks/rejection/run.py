"""By which score a text that asks for nothing is told from one that does: probability, energy, distance, neighbours.

Reads a checkpoint and the tokenised training and validation rows, nothing of the test split; prints tables for
results.md. With --clinc it first trains on CLINC150 without its out-of-scope rows, in a temporary folder.

    python -m benchmarks.rejection.run [--checkpoint models/trained]
    python -m benchmarks.rejection.run --clinc ../shared/data/clinc150 [--epochs 2]
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from benchmarks.machine import describe
from intents.batching import PaddingCollator, TokenizedTexts, sorted_batches
from intents.calibrating import fit_temperature, log_odds
from intents.classifier import load_classifier
from intents.roles import choose_roles
from intents.tables import intents_of

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_NEIGHBOURS = 10
LOSSES = (0.01, 0.05, 0.2)  # of the commands that were obeyed
NUM_SAMPLES = 1000
Floats = NDArray[np.float64]


def score_split(checkpoint: Path, tokenized: Path) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return labels, logits (n, c) and features of length 1 (n, d) of a split."""
    model = load_classifier(checkpoint)
    texts = TokenizedTexts(tokenized)
    collate = PaddingCollator(transformers.AutoTokenizer.from_pretrained(checkpoint).pad_token_id)
    logits, features = [], []
    order = [index for batch in sorted_batches(texts.lengths, 64) for index in batch]
    with torch.inference_mode():
        for batch in sorted_batches(texts.lengths, 64):
            inputs = collate([texts[index] for index in batch])
            del inputs["labels"]
            output = model(**inputs)
            if "features" not in output:
                raise ValueError(f"{checkpoint} has a head that shows no features: train with another train.head")
            logits.append(output.logits.double().numpy())
            features.append(torch.nn.functional.normalize(output.features.double(), dim=-1).numpy())
    back = np.argsort(order)
    return texts.labels, np.concatenate(logits)[back], np.concatenate(features)[back]


def scores_of(
    logits_nc: Floats, features_nd: Floats, temperature: float, train_labels: Any, train_features: Floats
) -> dict[str, Floats]:
    """Return each score, (n,), higher where the answer should be trusted more."""
    label_of_row = logits_nc.argmax(1)
    rows = np.arange(len(logits_nc))
    ordered = np.sort(logits_nc, axis=1)
    seen = np.unique(train_labels)
    centres = np.zeros((logits_nc.shape[1], features_nd.shape[1]))
    centres[seen] = [train_features[train_labels == label].mean(0) for label in seen]
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    nearest = np.sort(features_nd @ train_features.T, axis=1)[:, -NUM_NEIGHBOURS:]
    return {
        "max probability": log_odds(logits_nc.astype(np.float32), temperature)[rows, label_of_row],
        "energy": temperature * logsumexp(logits_nc / temperature, axis=1),
        "margin of the logits": ordered[:, -1] - ordered[:, -2],
        "cosine to the answer's centre": (features_nd @ centres.T)[rows, label_of_row],
        f"cosine to {NUM_NEIGHBOURS} nearest": nearest.mean(1),
    }


def compare(checkpoint: Path, tokenized_dir: Path, out_of_scope: str | None) -> None:
    """Print AUROC, the difference to max probability with its 95 % interval, and recall at losses of commands."""
    intents = intents_of(tokenized_dir / "validation.parquet")
    roles = choose_roles(intents, "auto", out_of_scope, "threshold")
    train_labels, _, train_features = score_split(checkpoint, tokenized_dir / "train.parquet")
    labels, logits_nc, features_nd = score_split(checkpoint, tokenized_dir / "validation.parquet")
    harmless = np.isin(labels, [intents.index(name) for name in roles.harmless])
    trained = np.isin(labels, train_labels)
    temperature = fit_temperature(labels[trained], logits_nc[trained].astype(np.float32))
    likeliest = logits_nc.argmax(1)
    passive = np.isin(likeliest, [intents.index(name) for name in roles.no_action])
    obeyed = ~harmless & (likeliest == labels)
    print(f"{describe()}\n{len(labels)} validation rows, {harmless.sum()} ask for nothing; no threshold: "
          f"{obeyed[~harmless].mean():.1%} obeyed, {(~passive)[harmless].mean():.1%} false actions\n")  # fmt: skip
    losses = " | ".join(f"rejected at {loss:.0%} loss" for loss in LOSSES)
    print(f"| score | AUROC | difference to max probability | {losses} |\n|---|---|---|" + "---|" * len(LOSSES))
    random = np.random.default_rng(0)
    samples = [random.integers(len(labels), size=len(labels)) for _ in range(NUM_SAMPLES)]
    reference: Floats | None = None
    for name, score in scores_of(logits_nc, features_nd, temperature, train_labels, train_features).items():
        # What is answered with an intent that asks for nothing is rejected already, whatever the score.
        final = np.where(passive, score.min() - 1, score)
        sampled = np.array([roc_auc_score(~harmless[rows], final[rows]) for rows in samples])
        reference = sampled if reference is None else reference
        low, high = np.quantile(sampled - reference, [0.025, 0.975])
        recalls = [f"{(passive | (score < np.quantile(score[obeyed], loss)))[harmless].mean():.1%}" for loss in LOSSES]
        shown = "" if sampled is reference else f"{low:+.4f} to {high:+.4f}"
        print(f"| {name} | {roc_auc_score(~harmless, final):.4f} | {shown} | " + " | ".join(recalls) + " |")


def train_on_clinc(source: Path, folder: Path, epochs: int) -> None:
    """Train on CLINC150 in `folder` with this repository's stages; out-of-scope rows serve validation alone."""
    with (folder / "clinc.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        for split in ("train", "validation", "test"):
            for name in (split, f"oos_{split}"):
                with (source / f"{name}.csv").open(encoding="utf-8", newline="") as rows:
                    writer.writerows([row["text"], row["label"], split] for row in csv.DictReader(rows))
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["prepare"] |= {
        "source": "clinc.csv",
        "intent_column": "label",
        "exclude_intents": [],
        "conflicts": "drop",
        "out_of_scope_intent": "oos",
        "out_of_scope_use": "threshold",
    }
    params["train"]["num_epochs"] = epochs
    params["tracking"]["report_to"] = "none"
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for stage in ("encoder", "prepare", "tokenize", "train"):
        subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=True)


def main() -> None:
    """Print the table of the driver data, or of CLINC150."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("models/trained"))
    parser.add_argument("--tokenized", type=Path, default=Path("data/tokenized"), help="of the checkpoint")
    parser.add_argument("--clinc", type=Path, help="folder with CLINC150; trains on it first")
    parser.add_argument("--epochs", type=int, default=2, help="of that training")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="train in this folder and leave it there")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.clinc is None:
        compare(options.checkpoint, options.tokenized, None)
        return
    if not (options.clinc / "oos_validation.csv").is_file():
        print(f"skipped: {options.clinc} holds no CLINC150 (train.csv, oos_train.csv and so on)")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        train_on_clinc(options.clinc.resolve(), folder, options.epochs)
        compare(folder / "models/trained", folder / "data/tokenized", "oos")


if __name__ == "__main__":
    main()
