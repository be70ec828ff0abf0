"""Scores windows on Ray Data: on the cluster at RAY_ADDRESS, or on this machine.

Tasks read the windows, a pool of actors scores them, and the answers come back in the order of the rows. Every window
holds the same rows as in a single process and is scored whole by one actor, so the answers are the same too. The
process that started the run reads the tables as well, to write each row beside its answer: whatever a lost worker
does twice, a row is written once.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intents.bulk.answering import Engine
from intents.bulk.loading import load_scorer
from intents.bulk.places import STANDARD, user_errors
from intents.bulk.reading import Source, open_table
from intents.bulk.rows import Window

# Blocks end at so many bytes: a window each, so that the windows of one big table are shared among the actors.
_BLOCK_BYTES = 1 << 10
# A reading task next to a scoring actor; different needs also keep Ray Data from fusing the two.
_READ_CPUS = 0.5
_Answer = tuple[int, int, str, NDArray[np.float32]]  # part, window, digest of its texts, their probabilities


class _WindowReader:
    """Reads a source in a worker; one that fails ends early here: the process that writes misses its windows."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(sources)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for index in batch["part"]:
            try:
                with open_table(self._sources[int(index)]) as table:
                    for number, window in enumerate(table.windows):
                        texts = np.empty(1, dtype=object)
                        texts[0] = window.good_texts
                        place = {"part": np.array([index]), "window": np.array([number])}
                        yield {**place, "digest": np.array([_digest_of(window)]), "texts": texts}
            except user_errors():
                continue


class _Scorer:
    """Holds the classifier in an actor."""

    def __init__(self, model_dir: Path, variant: str, num_threads: int) -> None:
        self._scorer = load_scorer(model_dir, variant, num_threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        scores = np.empty(len(batch["part"]), dtype=object)
        for index, texts in enumerate(batch["texts"]):
            scores[index] = self._scorer.probabilities(list(texts)).ravel().tolist()
        return {**{name: batch[name] for name in ("part", "window", "digest")}, "probabilities": scores}


def _digest_of(window: Window) -> str:
    """Return a digest of the texts of `window`: a file may change between its two readings."""
    return hashlib.sha256("\0".join(window.good_texts).encode("utf-8", "surrogatepass")).hexdigest()


def ray_engine(sources: Sequence[Source], model_dir: Path, num_intents: int, variant: str, num_threads: int) -> Engine:
    """Return the engine; `num_threads` are the cores of each worker process.

    Workers need this package, and see the sources and `model_dir` under the same names.

    Raises:
        ValueError: Ray is not installed, or a source is standard input.

    """
    try:
        import ray
    except ImportError:
        raise ValueError("--engine ray needs Ray: pip install -c constraints.txt -e '.[ray]'") from None
    if any(source.place == STANDARD for source in sources):
        raise ValueError("--engine ray cannot read standard input, which its workers do not see; save it as a file")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None)
    answers = _stream(sources, model_dir, variant, num_threads)
    places = [source.place for source in sources]
    held: list[_Answer] = []

    def take(wanted: tuple[int, int, str]) -> NDArray[np.float32]:
        found = held.pop() if held else next(answers, None)
        while found and found[0] < wanted[0]:  # what is left of a source that failed here is passed over
            found = next(answers, None)
        if found and found[:3] == wanted:
            return found[3].reshape(-1, num_intents)
        if found:
            held.append(found)
        raise ValueError(
            f"the workers did not read the texts of {places[wanted[0]]} that this process reads: do they see it under"
            " this name, and may they read it? Or did it change meanwhile?"
        )

    def score(source: Source, windows: Iterable[Window]) -> Iterator[tuple[Window, NDArray[np.float32]]]:
        part = places.index(source.place)
        for number, window in enumerate(windows):
            yield window, take((part, number, _digest_of(window)))

    return score


def _stream(sources: Sequence[Source], model_dir: Path, variant: str, num_threads: int) -> Iterator[_Answer]:
    """Yield the answers in order, as Ray Data computes them."""
    import ray

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_max_block_size = _BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    most = max(1, int(ray.cluster_resources().get("CPU", 1)) // num_threads)
    dataset = (
        ray.data.from_items([{"part": part} for part in range(len(sources))], override_num_blocks=len(sources))
        .map_batches(_WindowReader(sources).__call__, batch_size=1, num_cpus=_READ_CPUS)
        .map_batches(
            _Scorer,
            fn_constructor_args=(model_dir, variant, num_threads),
            batch_size=1,
            num_cpus=num_threads,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
        )
    )
    for row in dataset.iter_rows():
        probabilities = np.asarray(row["probabilities"], dtype=np.float32)
        yield int(row["part"]), int(row["window"]), str(row["digest"]), probabilities
