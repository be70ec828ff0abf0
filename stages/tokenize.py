"""Turns the texts into token ids; adds mistyped copies to the training texts.

Reads models/encoder and data/prepared/{train,validation,test,unlabelled}.parquet, writes data/tokenized/{train,
validation,test,unlabelled}.parquet and metrics/tokenize.json.

    python -m stages.tokenize
"""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from intents.cli import run
from intents.files import write_json
from intents.noising import mistyped_copies
from intents.params import Params, load_params
from intents.tokenizing import load_tokenizer, tokenize_table

ENCODER_DIR = Path("models/encoder")
PREPARED_DIR = Path("data/prepared")
TOKENIZED_DIR = Path("data/tokenized")
METRICS_PATH = Path("metrics/tokenize.json")
MANY_UNKNOWN = 0.05  # of all tokens, those at the ends of texts included


class TokenizeParams(Params):
    """Section `tokenize` of params.yaml."""

    max_length: int = Field(ge=4)
    mistyped_share: float = Field(ge=0, le=1)
    slips: float = Field(gt=0, le=1)
    seed: int = Field(ge=0)


def main() -> None:
    """Run the stage."""
    params = load_params("tokenize", TokenizeParams)
    tokenizer = load_tokenizer(ENCODER_DIR, params.max_length)
    mistype = partial(
        mistyped_copies, share=params.mistyped_share, slips=params.slips, chance=np.random.default_rng(params.seed)
    )
    counts = {
        split: tokenize_table(PREPARED_DIR / f"{split}.parquet", TOKENIZED_DIR / f"{split}.parquet", tokenizer, augment)
        for split, augment in (("train", mistype), ("validation", None), ("test", None), ("unlabelled", None))
    }
    mistyped = counts["train"]["rows"] - pq.read_metadata(PREPARED_DIR / "train.parquet").num_rows
    rows, tokens, truncated, unknown = (
        sum(c[key] for c in counts.values()) for key in ("rows", "tokens", "truncated", "unknown")
    )
    metrics = {
        "truncated": {split: count["truncated"] for split, count in counts.items()},
        "mistyped": mistyped,
        "tokens_per_text": round(tokens / rows, 2),
    }
    write_json(METRICS_PATH, metrics)
    print(
        f"tokenized {rows} texts, {truncated} of them cut at {params.max_length} tokens (tokenize.max_length);"
        f" {mistyped} are mistyped copies of training texts"
    )
    if unknown > MANY_UNKNOWN * tokens:
        print(
            f"warning: {unknown / tokens:.0%} of the tokens stand for what the encoder's vocabulary lacks, such as"
            " another script or emojis; name an encoder that knows it (encoder.name)"
        )


if __name__ == "__main__":
    run(main)
