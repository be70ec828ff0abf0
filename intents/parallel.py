"""One training in several processes: each takes its share of every batch, and the result is that of one process.

Without a process group all of this does nothing, at no cost.

Shapes: b texts of this process, n texts of all processes, d feature size.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import distributed
from torch.utils.data import Sampler

from intents.launching import num_launched

IGNORED = -100  # the label of a text that counts for nothing; torch and transformers know it
# Others wait while the first process evaluates, or answers a large log alone. Who started them notices one that dies.
_PATIENCE = timedelta(days=30)
T = TypeVar("T")


class BatchSampler(Protocol):
    """Yields batches of indices, in an order of its own for every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the coming pass."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...


def meet() -> None:
    """Form the group of the processes that torchrun started; accelerate's would wait half an hour and then give up."""
    if num_launched() is not None and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)


def num_processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_index() -> int:
    """Return this process's number among them, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def from_first(make: Callable[[], T]) -> T:
    """Return to every process what `make`, called by the first one alone, returned: no two can decide differently."""
    if num_processes() == 1:
        return make()
    made: list[Any] = [make() if process_index() == 0 else None]
    distributed.broadcast_object_list(made, src=0)
    return made[0]


def from_all(value: T) -> list[T]:
    """Return the values of all processes, in the order of their numbers."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values


def part_company() -> None:
    """Let each process go on, or end, without the others."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class ShareSampler(Sampler[list[int]]):
    """Yields this process's share of every batch, every so manieth text: the shares are of like length and number.

    Of a batch of fewer texts than processes some get nothing: an empty list.
    """

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the coming pass."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch[process_index() :: num_processes()]


def or_ignored(examples: Sequence[dict[str, Any]], pad_token_id: int) -> Sequence[dict[str, Any]]:
    """Return `examples`, or where there are none one that counts for nothing: every process must take every step."""
    return examples or [{"input_ids": [pad_token_id], "label": IGNORED}]


def gather_texts(features_bd: torch.Tensor, labels_b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of the texts of all processes, (n, d), and their labels, (n,), for a mean over the texts.

    Each process computes the same mean, counts b of it (its own texts), and passes on the gradient of its own features
    alone; that is multiplied by n / b, so that the sum over the processes is the gradient of the whole mean.
    """
    if num_processes() == 1:
        return features_bd, labels_b
    own_b = labels_b != IGNORED
    features_bd, labels_b = features_bd[own_b].float(), labels_b[own_b]
    counts = [torch.zeros(1, dtype=torch.int64, device=labels_b.device) for _ in range(num_processes())]
    distributed.all_gather(counts, torch.tensor([len(labels_b)], device=labels_b.device))
    sizes = [int(count) for count in counts]
    rows = features_bd.new_zeros(max(sizes), features_bd.shape[1] + 1)
    rows[: len(labels_b), :-1] = features_bd.detach()
    rows[: len(labels_b), -1] = labels_b  # exact in 32 bits up to 16 million intents
    gathered = [torch.empty_like(rows) for _ in sizes]
    distributed.all_gather(gathered, rows)
    features = [part[:size, :-1] for part, size in zip(gathered, sizes, strict=True)]
    if features_bd.requires_grad and len(labels_b):
        features_bd.register_hook(lambda gradient_bd: gradient_bd * (sum(sizes) / len(labels_b)))
    features[process_index()] = features_bd
    labels = [part[:size, -1].long() for part, size in zip(gathered, sizes, strict=True)]
    return torch.cat(features), torch.cat(labels)
