"""Batches of texts of similar length, so that little of a batch is padding."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

POOL = 200  # batches' worth of shuffled texts that are sorted by length together


class TokenizedTexts(Dataset[dict[str, Any]]):
    """Token ids and labels of one split, held in two flat arrays.

    A tokenised text costs 4 bytes a token here; `datasets` would build Python lists for every batch.
    """

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path)
        ids = table.column("input_ids").combine_chunks()
        self._ids = ids.values.to_numpy()
        self._starts = ids.offsets.to_numpy()
        self.labels = table.column("label").to_numpy().astype(np.int64)
        self.lengths = np.diff(self._starts)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._ids[self._starts[index] : self._starts[index + 1]], "label": self.labels[index]}

    def joined(
        self, others: "TokenizedTexts", chosen: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> "TokenizedTexts":
        """Return these texts and after them the `chosen` ones of `others`, with these `labels`."""
        joint = copy.copy(self)
        joint.labels = np.concatenate([self.labels, labels])
        joint.lengths = np.concatenate([self.lengths, others.lengths[chosen]])
        own_ids = self._ids[self._starts[0] : self._starts[-1]]
        joint._ids = np.concatenate([own_ids, *(others[index]["input_ids"] for index in chosen)])
        joint._starts = np.concatenate([[0], np.cumsum(joint.lengths)])
        return joint

    def tokens(self) -> NDArray[np.int64]:
        """Return the ids of the tokens that occur, each once, in ascending order."""
        return np.unique(self._ids[self._starts[0] : self._starts[-1]]).astype(np.int64)


class BucketBatchSampler(Sampler[list[int]]):
    """Yields batches of indices: shuffled anew in each pass, texts of similar length together.

    Pools of so many batches are drawn at random and sorted by length inside; then the batches are shuffled. The
    batches of a pass differ by one text at most, none is larger than `batch_size`. An epoch has so many `passes`.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, passes: int = 1, pool: int = POOL) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.drop_last = False
        self.seed = seed
        self.passes = passes
        self.pool = pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the coming epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.passes * num_batches(len(self.lengths), self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        number = num_batches(len(self.lengths), self.batch_size)
        starts = [len(self.lengths) * i // number for i in range(number + 1)]
        for drawn in range(self.epoch * self.passes, (self.epoch + 1) * self.passes):
            random = np.random.default_rng((self.seed, drawn))
            shuffled = random.permutation(len(self.lengths))
            pools = np.split(shuffled, starts[self.pool : -1 : self.pool])
            ordered = np.concatenate([p[np.argsort(self.lengths[p], kind="stable")] for p in pools])
            for i in random.permutation(number):
                yield ordered[starts[i] : starts[i + 1]].tolist()


def num_batches(num_texts: int, batch_size: int) -> int:
    """Return the number of batches in a pass, and so of its optimizer steps."""
    return -(-num_texts // batch_size)


class SplitBatchSampler(Sampler[list[int]]):
    """Yields every batch of `batches` in `parts` batches of near-equal size, for a step that accumulates gradients.

    Of a batch of fewer texts than parts some are empty lists: every step has as many parts.
    """

    def __init__(self, batches: BucketBatchSampler, parts: int) -> None:
        self.batches = batches
        self.parts = parts
        self.batch_size = -(-batches.batch_size // parts)
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the coming epoch."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            for part in range(self.parts):
                yield batch[len(batch) * part // self.parts : len(batch) * (part + 1) // self.parts]


class PaddingCollator:
    """Pads the texts of a batch to the longest of them, and counts the tokens that passed through.

    With `length` they are padded to that, if it is more.
    """

    def __init__(self, pad_token_id: int, length: int = 0) -> None:
        self.pad_token_id = pad_token_id
        self.length = length
        self.examples = self.useful_tokens = self.padded_tokens = 0

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return input_ids and attention_mask, (batch, longest), and labels, (batch,)."""
        lengths = [len(example["input_ids"]) for example in examples]
        shape = (len(examples), max(self.length, *lengths))
        input_ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
            input_ids[row, :length] = example["input_ids"]
            attention_mask[row, :length] = 1
        self.examples += len(examples)
        self.useful_tokens += sum(lengths)
        self.padded_tokens += shape[0] * shape[1]
        labels = torch.tensor([int(example["label"]) for example in examples])
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "labels": labels,
        }


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return batches of indices, longest texts first: the least padding, for passes whose order does not matter."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
