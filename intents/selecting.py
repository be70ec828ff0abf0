"""Which of the raw rows take part: no repeats, no contradictions, nothing that is not wanted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from intents.checking import Example, check_excluded, check_spellings, check_splits, is_official
from intents.duplicates import like_any, normalise
from intents.problems import Problem
from intents.records import RawRows
from intents.rows import SPLITS


@dataclass
class Selection:
    """The rows that take part, and those that were left out, each with its reason."""

    kept: list[Example]
    rejected: list[tuple[Example, str]] = field(default_factory=list)

    def reject(self, doomed: dict[int, str]) -> None:
        """Move the kept examples at the positions in `doomed` to the rejected ones, each with its reason."""
        self.rejected += [(self.kept[position], reason) for position, reason in doomed.items()]
        self.kept = [example for position, example in enumerate(self.kept) if position not in doomed]


def select_rows(
    tables: Sequence[RawRows], exclude_intents: Sequence[str], conflicts: str
) -> tuple[Selection, list[Problem]]:
    """Return the rows without repeats and without what is not wanted, and all that is wrong with them."""
    selection = Selection(list(_examples(tables)))
    problems = [problem for table in tables for problem in table.problems]
    problems += check_splits(selection.kept) + check_spellings(selection.kept)
    problems += check_excluded(selection.kept, exclude_intents)
    selection.reject({i: "excluded intent" for i, e in enumerate(selection.kept) if e.intent in exclude_intents})
    _drop_repeats(selection)
    problems += _settle_conflicts(selection, conflicts)
    return selection, problems


def _examples(tables: Sequence[RawRows]) -> Iterable[Example]:
    for table in tables:
        file = table.path.as_posix()
        for i in range(len(table)):
            yield Example(table.texts[i], table.intents[i], table.kinds[i], table.splits[i], file, table.numbers[i])


def _drop_repeats(selection: Selection) -> None:
    first: set[tuple[str, str, str]] = set()
    doomed = {}
    for position, example in enumerate(selection.kept):
        key = (example.text, example.intent, f"{example.file}:{example.split}")
        if key in first:
            doomed[position] = "exact repeat"
        first.add(key)
    selection.reject(doomed)


def _settle_conflicts(selection: Selection, conflicts: str) -> list[Problem]:
    normalised = [normalise(example.text) for example in selection.kept]
    first: dict[str, str] = {}
    contested = {
        text
        for text, example in zip(normalised, selection.kept, strict=True)
        if first.setdefault(text, example.intent) != example.intent
    }
    positions: dict[str, list[int]] = {}
    for position, text in enumerate(normalised):
        if text in contested:
            positions.setdefault(text, []).append(position)
    if conflicts == "drop":
        of_train = [i for rows in positions.values() for i in rows if not is_official(selection.kept[i])]
        selection.reject(dict.fromkeys(of_train, "same text under two intents"))
        return []
    problems = []
    for rows in positions.values():
        found = [selection.kept[i] for i in rows]
        places = "; ".join(f"{e.file}, row {e.row}: {e.intent}" for e in found)
        texts = " and ".join(dict.fromkeys(repr(e.text) for e in found))
        problems.append(
            Problem(f"{places}: the same text {texts} under two intents (mend the file, or set prepare.conflicts=drop)")
        )
    return problems


def check_left(selection: Selection) -> None:
    """Raise ValueError where no row is left, or none of an official split."""
    if not selection.kept:
        reasons = Counter(reason for _, reason in selection.rejected)
        left_out = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise ValueError(f"no row is left to train on: {left_out or 'the files have a header and no rows'}")
    for split in SPLITS[1:]:
        gone = Counter(reason for example, reason in selection.rejected if example.split == split)
        if gone and not any(example.split == split for example in selection.kept):
            why = ", ".join(f"{count} {reason}" for reason, count in gone.items())
            raise ValueError(
                f"no official {split} row is left ({why}): give others, or none at all, and some are carved from the"
                " rest"
            )


def leave_out_near_official(selection: Selection, groups: list[int], threshold: float) -> list[int]:
    """Leave out rows alike to an official test or validation row; return the groups of the others.

    Raises:
        ValueError: no official validation row is left.

    """
    had_validation = any(example.split == "validation" for example in selection.kept)
    for official in ("test", "validation"):
        splits = np.array([example.split for example in selection.kept])
        positions = np.flatnonzero((splits != "test") | (official == "test"))  # validation rows never cost a test row
        texts = [selection.kept[position].text for position in positions]
        alike = like_any(texts, np.array(groups)[positions], splits[positions] == official, threshold)
        doomed = dict.fromkeys(positions[alike].tolist(), f"near-duplicate of a {official} row")
        selection.reject(doomed)
        groups = [group for position, group in enumerate(groups) if position not in doomed]
    if had_validation and all(example.split != "validation" for example in selection.kept):
        raise ValueError(
            "every official validation row is a near-duplicate of a test row: set"
            " prepare.near_duplicates_of_official=keep, or name another file"
        )
    return groups
