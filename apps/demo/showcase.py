"""What the answers to the test split offer the demo: texts to click, and the confusion matrix."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intents.calibrations import ABSTAIN
from intents.scoring import confusion_counts, share_interval
from intents.tables import intents_of, read_judged

_CLICKABLE_WORDS = range(3, 11)  # a text to click fits on a button and still says something
_MOST_PER_GROUP = 4
Row = dict[str, Any]
Key = Callable[[Row], tuple[float, str]]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix and the accuracy with its 95 % interval; rows are true intents, columns answers."""

    intents: list[str]
    answers: list[str]  # the intents, and "abstain" where it is among the answers
    counts: list[list[int]]
    accuracy: float
    interval: tuple[float, float]
    examples: int


def confusion_of(predictions_path: Path) -> Matrix:
    """Return the confusion matrix of the answers at `predictions_path`."""
    intents = intents_of(predictions_path)
    table = read_judged(predictions_path, ["intent", "predicted"])
    names = table.column("predicted").to_pylist()
    answers = [*intents, *([ABSTAIN] if ABSTAIN in names and ABSTAIN not in intents else [])]
    labels = {answer: label for label, answer in enumerate(answers)}
    true, predicted = (
        np.array([labels[intent] for intent in table.column(name).to_pylist()]) for name in ("intent", "predicted")
    )
    right = int((true == predicted).sum())
    low, high = share_interval(right, len(true), 0.95)
    counts = confusion_counts(true, predicted, len(intents), len(answers)).tolist()
    return Matrix(intents, answers, counts, right / len(true), (low, high), len(true))


def examples_of(predictions_path: Path) -> dict[str, list[str]]:
    """Return groups of texts to click: clear ones, near misses of a command, doubtful ones and mistakes.

    Near misses are right answers of the intent with the most kinds of example (in the bundled data no_intent: a
    negation, a question about the state, another device) that sound most like the other intents. A group that would be
    empty is left out.
    """
    columns = ["text", "intent", "kind", "predicted", "answer", "confidence"]
    rows = read_judged(predictions_path, columns).to_pylist()
    rows = [row for row in rows if len(row["text"].split()) in _CLICKABLE_WORDS]
    right = [row for row in rows if row["intent"] == row["predicted"]]
    wrong = [row for row in rows if row["intent"] != row["predicted"]]
    background = _background(rows)
    answered = [row for row in right if row["intent"] == row["answer"]]  # sure enough
    commands = [row for row in answered if row["intent"] != background]
    others = [row for row in answered if row["intent"] == background]
    likeness = _likeness_to(commands, others)
    clear = _best_per("intent", commands, _confidence)
    near_misses = _best_per("kind", others, likeness)
    rest = [row for row in right if row not in clear and row not in near_misses]
    groups = {
        "Clear": clear,
        "Near misses": near_misses,
        "Doubtful": sorted(rest, key=_confidence)[:_MOST_PER_GROUP],
        "Known mistakes": sorted(wrong, key=_confidence, reverse=True)[:_MOST_PER_GROUP],
    }
    return {name: [row["text"] for row in chosen] for name, chosen in groups.items() if chosen}


def _background(rows: list[Row]) -> str | None:
    """Return the intent that has by far the most kinds of example; None where no intent stands out."""
    kinds_of: dict[str, set[str]] = {}
    for row in rows:
        kinds_of.setdefault(row["intent"], set()).add(row["kind"])
    counts = sorted((len(kinds - {""}), intent) for intent, kinds in kinds_of.items())
    return counts[-1][1] if len(counts) > 1 and counts[-1][0] > counts[-2][0] else None


def _confidence(row: Row) -> tuple[float, str]:
    return row["confidence"], row["text"]


def _likeness_to(commands: list[Row], others: list[Row]) -> Key:
    """Return a key that grows with the share of a text's words that are commoner in `commands` than in `others`."""
    counts = [Counter(word for row in rows for word in set(_words(row))) for rows in (commands, others)]
    shares = [
        {word: count / len(rows) for word, count in counter.items()}
        for counter, rows in zip(counts, (commands, others), strict=True)
    ]

    def likeness(row: Row) -> tuple[float, str]:
        words = _words(row)
        return sum(shares[0].get(word, 0) > shares[1].get(word, 0) for word in words) / len(words), row["text"]

    return likeness


def _words(row: Row) -> list[str]:
    return [word.strip(".,?!").lower() for word in row["text"].split()]


def _best_per(column: str, rows: list[Row], key: Key) -> list[Row]:
    """Return the row with the highest `key` for each value of `column`, sentences before anything else; best first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)

    def rank(row: Row) -> tuple[bool, float, str]:
        return (row["text"][0].isupper() and row["text"][-1] in ".?!", *key(row))

    return sorted((max(group, key=rank) for group in groups.values()), key=rank, reverse=True)[:_MOST_PER_GROUP]
