"""Turns the texts into token ids.

Reads models/encoder and data/prepared/{train,validation,test}.parquet, writes data/tokenized/{train,validation,
test}.parquet and metrics/tokenize.json.

    python -m stages.tokenize
"""

from pathlib import Path

from pydantic import Field

from intents.cli import run
from intents.files import write_json
from intents.params import Params, load_params
from intents.tokenizing import load_tokenizer, tokenize_table

ENCODER_DIR = Path("models/encoder")
PREPARED_DIR = Path("data/prepared")
TOKENIZED_DIR = Path("data/tokenized")
METRICS_PATH = Path("metrics/tokenize.json")


class TokenizeParams(Params):
    """Section `tokenize` of params.yaml."""

    max_length: int = Field(ge=4)


def main() -> None:
    """Run the stage."""
    params = load_params("tokenize", TokenizeParams)
    tokenizer = load_tokenizer(ENCODER_DIR, params.max_length)
    counts = {
        split: tokenize_table(PREPARED_DIR / f"{split}.parquet", TOKENIZED_DIR / f"{split}.parquet", tokenizer)
        for split in ("train", "validation", "test")
    }
    rows, tokens, truncated = (sum(c[key] for c in counts.values()) for key in ("rows", "tokens", "truncated"))
    metrics = {
        "truncated": {split: count["truncated"] for split, count in counts.items()},
        "tokens_per_text": round(tokens / rows, 2),
    }
    write_json(METRICS_PATH, metrics)
    print(f"tokenized {rows} texts, {truncated} of them cut at {params.max_length} tokens")


if __name__ == "__main__":
    run(main)
