"""Texts to token ids, in batches, in constant memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from intents.tables import intents_of, read_fact, table_writer, with_facts

_BATCH_SIZE = 10_000
# They count positions from padding_idx + 1, as RoBERTa does, and so hold two tokens fewer than they have positions.
_ROBERTA_KIN = ("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "xmod")
Augment = Callable[[Sequence[str]], list[tuple[int, str]]]  # texts -> (position of the original, another text)
SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("label", pa.int32())])


def load_tokenizer(folder: Path, max_length: int) -> Any:
    """Return the fast tokenizer in `folder`, truncating at `max_length` tokens, special tokens included.

    Raises:
        ValueError: the encoder in `folder` cannot hold that many tokens, or has none to pad with.

    """
    if not (folder / "config.json").is_file():  # transformers would take it for the name of a model on the Hub
        raise ValueError(f"{folder} holds no encoder (no config.json): run `dvc repro encoder`")
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    positions = getattr(config, "max_position_embeddings", None) or 0  # -1, as XLNet has it: any number
    reserved = 2 if "roberta" in config.model_type or config.model_type in _ROBERTA_KIN else 0
    if 0 < positions < max_length + reserved:
        raise ValueError(
            f"tokenize.max_length must be at most {positions - reserved} for this encoder, got {max_length}"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"encoder.name: {config.model_type} models have no token to pad with, as it is with decoders; take an"
            " encoder, such as BERT"
        )
    tokenizer.model_max_length = max_length
    # Else HF_HUB_OFFLINE, where it is set, would be noted in the checkpoint and change its hash.
    if "local_files_only" in tokenizer.init_kwargs:
        tokenizer.init_kwargs["local_files_only"] = False
    return tokenizer


def tokenize_table(source: Path, target: Path, tokenizer: Any, augment: Augment | None = None) -> dict[str, int]:
    """Write the token ids and labels of the texts in `source` to `target`; no padding.

    After all of them, so that a row keeps its number, follow the texts that `augment` makes of each 10,000, under the
    labels of their originals. Returns the numbers of rows, tokens, truncated rows, and tokens
    that stand for what the vocabulary lacks.
    """
    counts = {"rows": 0, "tokens": 0, "truncated": 0, "unknown": 0}
    schema = with_facts(SCHEMA, intents=intents_of(source), max_length=tokenizer.model_max_length)
    with pq.ParquetFile(source) as file, table_writer(target, schema) as writer:

        def write(texts: Sequence[str], labels: pa.Array) -> None:
            encoded = tokenizer(list(texts), truncation=True, return_attention_mask=False)
            ids = pa.array(encoded["input_ids"], type=SCHEMA.field("input_ids").type)
            writer.write_batch(pa.record_batch([ids, labels], schema=schema))
            counts["rows"] += len(texts)
            counts["tokens"] += len(ids.values)
            counts["unknown"] += int((ids.values.to_numpy() == tokenizer.unk_token_id).sum())
            counts["truncated"] += sum(bool(encoding.overflowing) for encoding in encoded.encodings)

        for texts, labels in _batches(file):
            write(texts, labels)
        if augment is not None:
            for texts, labels in _batches(file):
                made = augment(texts)
                if made:
                    write([text for _, text in made], labels.take(pa.array([origin for origin, _ in made])))
    return counts


def _batches(file: pq.ParquetFile) -> Iterator[tuple[list[str], pa.Array]]:
    for batch in file.iter_batches(batch_size=_BATCH_SIZE, columns=["text", "label"]):
        yield batch.column("text").to_pylist(), batch.column("label")


def max_length_of(tokenized: Path) -> int:
    """Return the longest text, in tokens, that the table at `tokenized` was cut to."""
    return int(read_fact(tokenized, "max_length"))
