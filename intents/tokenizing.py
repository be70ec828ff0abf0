"""Texts to token ids, in batches, in constant memory."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from intents.tables import intents_of, read_fact, table_writer, with_facts

_BATCH_SIZE = 10_000
SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int32())])


def load_tokenizer(folder: Path, max_length: int) -> Any:
    """Return the fast tokenizer in `folder`, truncating at `max_length` tokens, special tokens included.

    Raises:
        ValueError: the encoder in `folder` cannot hold that many tokens.

    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    positions = getattr(config, "max_position_embeddings", None)
    # RoBERTa's kin count positions from padding_idx + 1 and so hold two tokens fewer than they have positions.
    reserved = 2 if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet", "longformer") else 0
    if positions and max_length > positions - reserved:
        raise ValueError(
            f"tokenize.max_length must be at most {positions - reserved} for this encoder, got {max_length}"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.model_max_length = max_length
    return tokenizer


def tokenize_table(source: Path, target: Path, tokenizer: Any) -> dict[str, int]:
    """Write the token ids and labels of the texts in `source` to `target`; no padding.

    Returns the numbers of rows, tokens and truncated rows.
    """
    counts = {"rows": 0, "tokens": 0, "truncated": 0}
    schema = with_facts(SCHEMA, intents=intents_of(source), max_length=tokenizer.model_max_length)
    with pq.ParquetFile(source) as file, table_writer(target, schema) as writer:
        for batch in file.iter_batches(batch_size=_BATCH_SIZE, columns=["text", "label"]):
            encoded = tokenizer(batch.column("text").to_pylist(), truncation=True, return_attention_mask=False)
            ids = pa.array(encoded["input_ids"], type=SCHEMA.field("input_ids").type)
            writer.write_batch(pa.record_batch([ids, batch.column("label")], schema=schema))
            counts["rows"] += len(batch)
            counts["tokens"] += len(ids.values)
            counts["truncated"] += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    return counts


def max_length_of(tokenized: Path) -> int:
    """Return the longest text, in tokens, that the table at `tokenized` was cut to."""
    return int(read_fact(tokenized, "max_length"))
