"""Pairs of texts that differ in one thing, to see whether the classifier heeds what matters, and only that.

After the minimum functionality, invariance and directional tests of Ribeiro et al. 2020 (CheckList).
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intents.bulk.scoring import Scorer
from intents.calibrations import Calibration
from intents.deciding import decide
from intents.scoring import rounded, share_interval

COLUMNS = ("pair", "aspect", "text_a", "intent_a", "text_b", "intent_b")
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """Two texts with their intents, and the one aspect in which the texts differ."""

    name: str
    aspect: str
    texts: tuple[str, str]
    intents: tuple[str, str]

    @property
    def must(self) -> str:
        """What the answers must do: "differ" or "agree"."""
        return "agree" if self.intents[0] == self.intents[1] else "differ"


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs in the CSV file at `path`, which has the header `COLUMNS`.

    Raises:
        ValueError: it is not UTF-8, a column or a value is missing, a row is longer than the header, or an aspect
            matters in some pairs and not in others.

    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(
            f"evaluate.behaviour_pairs: {path} is no file; name a CSV file of pairs, or data/none for none"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"evaluate.behaviour_pairs: {path} is not UTF-8 ({error}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(
            f"evaluate.behaviour_pairs: {path}, line {reader.line_num}: not valid CSV ({error}); is a quote left open?"
        ) from None
    if sorted(header) != sorted(COLUMNS):
        found = ", ".join(header) or "none"
        raise ValueError(
            f"evaluate.behaviour_pairs: {path} must have the columns {', '.join(COLUMNS)}; it has: {found}"
        )
    too_long = [str(line) for line, row in rows if None in row]
    if too_long:
        raise ValueError(
            f"evaluate.behaviour_pairs: {path} has more fields than its header in line(s) {', '.join(too_long)}; quote"
            " texts that contain ','"
        )
    incomplete = [str(line) for line, row in rows if not all((row.get(name) or "").strip() for name in COLUMNS)]
    if incomplete:
        raise ValueError(f"evaluate.behaviour_pairs: {path} lacks values in line(s) {', '.join(incomplete)}")
    pairs = [
        Pair(row["pair"], row["aspect"], (row["text_a"], row["text_b"]), (row["intent_a"], row["intent_b"]))
        for row in ({name: cell.strip() for name, cell in row.items()} for _, row in rows)
    ]
    musts = {(pair.aspect, pair.must) for pair in pairs}
    mixed = sorted(aspect for aspect, must in musts if must == "agree" and (aspect, "differ") in musts)
    if mixed:
        raise ValueError(
            f"evaluate.behaviour_pairs: {path}: {', '.join(mixed)} changes the intent in some pairs and not in others;"
            " give these an aspect of their own"
        )
    return pairs


def ask(scorer: Scorer, pairs: Sequence[Pair], never: Sequence[str] = ()) -> Table:
    """Return one row per pair whose intents the classifier knows: its texts, the answers, and what they are worth.

    Intents that are `never` an answer, out-of-scope ones that only set thresholds, are as good as unknown.

    passed: both answers are right. consistent: they differ where they must, or agree where they must, right or not.
    passed_before_thresholds: the likeliest intents are right. A classifier that knows none of the actions of the pairs
    is made for something else, and is asked nothing.
    """
    known = {intent for pair in pairs for intent in pair.intents} & set(scorer.intents) - set(never)
    acts = bool(known - set(scorer.calibration.no_action))
    pairs = [pair for pair in pairs if acts and set(pair.intents) <= known]
    probabilities_nc = scorer.probabilities([text for pair in pairs for text in pair.texts])
    answers, _ = decide(probabilities_nc, scorer.intents, scorer.calibration)
    likeliest, _ = decide(probabilities_nc, scorer.intents, Calibration())
    return [
        {
            "pair": pair.name,
            "aspect": pair.aspect,
            "must": pair.must,
            "text_a": pair.texts[0],
            "intent_a": pair.intents[0],
            "answer_a": answers[2 * i],
            "text_b": pair.texts[1],
            "intent_b": pair.intents[1],
            "answer_b": answers[2 * i + 1],
            "passed": tuple(answers[2 * i : 2 * i + 2]) == pair.intents,
            "consistent": (answers[2 * i] == answers[2 * i + 1]) == (pair.must == "agree"),
            "passed_before_thresholds": tuple(likeliest[2 * i : 2 * i + 2]) == pair.intents,
        }
        for i, pair in enumerate(pairs)
    ]


def aspect_table(asked: Table, confidence_level: float) -> Table:
    """Return per aspect how many pairs passed and how many are consistent, with exact intervals.

    Aspects that matter come first, each kind in the order of the file.
    """
    aspects = dict.fromkeys((row["must"], row["aspect"]) for row in asked)
    return [
        rounded({"aspect": aspect, "must": must, **_shares(asked, aspect, confidence_level)})
        for must, aspect in sorted(aspects, key=lambda key: key[0] == "agree")
    ]


def _shares(asked: Table, aspect: str, confidence_level: float) -> dict[str, Any]:
    rows = [row for row in asked if row["aspect"] == aspect]
    found: dict[str, Any] = {"pairs": len(rows)}
    for name in ("passed", "consistent"):
        count = sum(row[name] for row in rows)
        low, high = share_interval(count, len(rows), confidence_level)
        found |= {name: count / len(rows), f"{name}_low": low, f"{name}_high": high}
    found["passed_before_thresholds"] = sum(row["passed_before_thresholds"] for row in rows) / len(rows)
    return found


def headline(asked: Table, num_pairs: int, confidence_level: float) -> dict[str, Any]:
    """Return how many pairs could be asked and, where some could, the share that passed: of all, and of each aspect."""
    aspects = {row["aspect"]: row["passed"] for row in aspect_table(asked, confidence_level)}
    # A list, which `dvc exp show` leaves out: it would be a column per aspect.
    counts = {"behaviour_pairs": [{"asked": len(asked), "left_out": num_pairs - len(asked), "passed": aspects}]}
    if not asked:
        return counts
    passed = sum(row["passed"] for row in asked)
    return rounded(
        {
            "behaviour_passed": passed / len(asked),
            "behaviour_passed_before_thresholds": sum(row["passed_before_thresholds"] for row in asked) / len(asked),
            "behaviour_passed_interval": share_interval(passed, len(asked), confidence_level),
            **counts,
        }
    )
