"""Answers the test texts with classifiers that are not fine-tuned, the lower rungs of the ladder in the report.

They are: always the most frequent intent; TF-IDF of words and characters with logistic regression; the frozen encoder's
features with logistic regression. All are fitted on train and chosen on validation. Of the test split only the texts
are read: their answers go to a file, and evaluate, which alone knows the test labels, scores them.

Reads models/encoder, data/prepared and data/tokenized, writes data/predictions/baselines.parquet (an intent per test
row and baseline) and metrics/baselines.json (scores on validation, costs in seconds).

    python -m stages.baselines
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from intents.baselines import (
    Baseline,
    Features,
    Labels,
    majority_baseline,
    regression_baseline,
    sample_rows,
    sample_training_rows,
    tfidf_features,
)
from intents.cli import run
from intents.encoding import encode_tokens
from intents.files import write_json
from intents.params import Params, load_params
from intents.tables import intents_of, write_table
from intents.tokenizing import load_tokenizer, max_length_of

ENCODER_DIR = Path("models/encoder")
PREPARED_DIR = Path("data/prepared")
TOKENIZED_DIR = Path("data/tokenized")
PREDICTIONS_PATH = Path("data/predictions/baselines.parquet")
METRICS_PATH = Path("metrics/baselines.json")
SPLITS = ("train", "validation", "test")


class BaselinesParams(Params):
    """Section `baselines` of params.yaml."""

    regularisations: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    max_rows: int = Field(ge=1)
    seed: int = Field(ge=0)


def choose_rows(params: BaselinesParams) -> dict[str, Labels]:
    """Return which rows of each split take part: at most `max_rows` of train and of validation, all of test.

    Raises:
        ValueError: train has more intents than `max_rows`.

    """
    num_rows = {split: pq.read_metadata(PREPARED_DIR / f"{split}.parquet").num_rows for split in SPLITS}
    labels_n = read_column("train", "label", np.arange(num_rows["train"])).to_numpy()
    return {
        "train": sample_training_rows(labels_n, params.max_rows, params.seed),
        "validation": sample_rows(num_rows["validation"], params.max_rows, params.seed),
        "test": np.arange(num_rows["test"]),
    }


def read_column(split: str, column: str, rows: Labels) -> pa.ChunkedArray:
    """Return some rows of one column of a prepared split."""
    return pq.read_table(PREPARED_DIR / f"{split}.parquet", columns=[column]).column(column).take(rows)


def build_baselines(params: BaselinesParams, rows: dict[str, Labels]) -> dict[str, Baseline]:
    """Return the baselines by name, the simplest first."""
    import transformers

    from intents.batching import TokenizedTexts

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    texts = {split: read_column(split, "text", rows[split]).to_pylist() for split in SPLITS}
    labels = {split: read_column(split, "label", rows[split]).to_numpy() for split in ("train", "validation")}
    tokenizer = load_tokenizer(ENCODER_DIR, max_length_of(TOKENIZED_DIR / "train.parquet"))

    def encode(split: str) -> Features:
        tokenized = TokenizedTexts(TOKENIZED_DIR / f"{split}.parquet")
        return encode_tokens(ENCODER_DIR, [tokenized[row] for row in rows[split]], tokenizer.pad_token_id)

    return {
        "majority": majority_baseline(labels, len(rows["test"])),
        "tfidf": regression_baseline(tfidf_features(texts), labels, params.regularisations),
        "frozen_encoder": regression_baseline(encode, labels, params.regularisations),
    }


def describe(baseline: Baseline) -> dict[str, Any]:
    """Return what metrics/baselines.json says about one of them."""
    chosen = {} if baseline.regularisation is None else {"regularisation": baseline.regularisation}
    return {
        "validation_accuracy": round(baseline.validation_accuracy, 4),
        **chosen,
        "seconds": round(baseline.seconds, 1),
    }


def check_settings() -> None:
    """Raise ValueError where the settings of this stage are wrong: `train` asks before it begins."""
    load_params("baselines", BaselinesParams)


def main() -> None:
    """Run the stage."""
    params = load_params("baselines", BaselinesParams)
    rows = choose_rows(params)
    baselines = build_baselines(params, rows)
    intents = intents_of(PREPARED_DIR / "train.parquet")
    answers = {name: [intents[label] for label in baseline.predicted_n] for name, baseline in baselines.items()}
    write_table(PREDICTIONS_PATH, answers, pa.schema([(name, pa.string()) for name in answers]))
    metrics = {name: describe(baseline) for name, baseline in baselines.items()}
    write_json(METRICS_PATH, {**metrics, "rows": {split: len(rows[split]) for split in ("train", "validation")}})
    for name, found in metrics.items():
        print(f"{name}: validation accuracy {found['validation_accuracy']}, {found['seconds']} s")


if __name__ == "__main__":
    run(main)
