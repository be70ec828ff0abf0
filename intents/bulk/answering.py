"""One table in, one table out: windows are read, scored by an engine, decided and written, in order."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intents.bulk.reading import Source, open_table
from intents.bulk.rows import Window
from intents.bulk.schemas import schema_of_objects
from intents.bulk.scoring import Scorer
from intents.bulk.writing import raise_clash, table_writer
from intents.calibrations import Calibration
from intents.deciding import decide

# Takes the windows of a source and yields the probabilities of each one's good texts, window by window, in order.
Engine = Callable[[Source, Iterable[Window]], Iterator[tuple[Window, NDArray[np.float32]]]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Decider:
    """How probabilities become the columns of an answer."""

    intents: tuple[str, ...]
    calibration: Calibration
    probabilities: bool = False
    prefix: str = ""

    @property
    def schema(self) -> pa.Schema:
        """The columns of an answer."""
        fields = [("intent", pa.string()), ("confidence", pa.float32())]
        if self.probabilities:
            fields += [(f"probability_{intent}", pa.float32()) for intent in self.intents]
        return pa.schema([(self.prefix + name, kind) for name, kind in [*fields, ("reason", pa.string())]])

    def answer(self, window: Window, probabilities_nc: NDArray[np.float32]) -> pa.RecordBatch:
        """Return one answer per row of `window`; `probabilities_nc` has a row for each of its good texts."""
        good = np.array([text is not None for text in window.texts], dtype=bool)
        if len(probabilities_nc) != good.sum():
            raise RuntimeError(f"{good.sum()} texts got {len(probabilities_nc)} answers")
        answers, confidences = decide(probabilities_nc, self.intents, self.calibration)
        intents = np.full(len(window), "", dtype=object)
        intents[good] = answers
        columns = [pa.array(intents, pa.string()), _spread(confidences, good)]
        if self.probabilities:
            columns += [_spread(probabilities_nc[:, label], good) for label in range(len(self.intents))]
        return pa.record_batch([*columns, pa.array(window.reasons, pa.string())], schema=self.schema)


def _spread(values: NDArray[np.float32], good: NDArray[np.bool_]) -> pa.Array:
    """Return `values` at the rows that are `good`, null elsewhere."""
    full = np.zeros(len(good), dtype=np.float32)
    full[good] = values
    return pa.array(full, mask=~good)


def local_engine(scorer: Scorer) -> Engine:
    """Return the engine that scores in this process."""

    def score(_: Source, windows: Iterable[Window]) -> Iterator[tuple[Window, NDArray[np.float32]]]:
        for window in windows:
            yield window, scorer.probabilities(window.good_texts)

    return score


@dataclass(frozen=True)
class Counts:
    """Rows of a table, and those among them that could not be answered."""

    rows: int = 0
    bad: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.rows + other.rows, self.bad + other.bad)


def answer_table(
    source: Source, target: str, target_format: str, engine: Engine, decider: Decider, progress: Progress
) -> Counts:
    """Write the rows of `source` with their answers to `target`, whole or not at all.

    `progress(rows, bytes_read)` is called after each window.

    Raises:
        ValueError: the source cannot be read, or has columns of the names that the answers get.

    """
    counts = Counts()
    schema = schema_of_objects(source) if source.format == "jsonl" and target_format != "jsonl" else None
    with open_table(source) as table:
        schema = table.schema if schema is None else schema  # that of an empty JSONL is empty
        raise_clash(schema.names if schema else [], decider.schema.names)
        with table_writer(target, target_format, schema, decider.schema) as writer:
            for window, probabilities_nc in engine(source, table.windows):
                writer.write(window, decider.answer(window, probabilities_nc))
                counts += Counts(len(window), window.texts.count(None))
                progress(len(window), table.bytes_read())
    return counts
