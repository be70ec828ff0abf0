"""From raw rows to checked splits without leaks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from intents.checking import (
    Example,
    carved_splits,
    check_enough,
    check_official_intents,
    check_official_trained,
    check_out_of_scope,
)
from intents.duplicates import like_any, near_duplicate_groups, pairs_across
from intents.problems import raise_problems
from intents.records import RawRows
from intents.rows import SPLITS
from intents.selecting import Selection, check_left, leave_out_near_official, select_rows
from intents.splitting import TooFewGroupsError, stratified_group_split
from intents.unlabelled import check_unlabelled, count_unlabelled, without_known

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("intent", pa.string()),
        ("label", pa.int32()),
        ("kind", pa.string()),
        ("row", pa.int32()),  # number of the row in its source file
    ]
)


@dataclass
class Prepared:
    """Result of `prepare`."""

    intents: list[str]
    splits: dict[str, dict[str, list[Any]]]  # split -> column of SCHEMA -> values
    rejected: list[tuple[str, int, str, str, str]]  # file, row, text, intent, reason
    metrics: dict[str, Any]
    unlabelled: dict[str, list[Any]]  # column of SCHEMA -> values; intents are empty, labels -1


def prepare(
    tables: Sequence[RawRows],
    unlabelled: RawRows,
    *,
    exclude_intents: Sequence[str],
    out_of_scope_intent: str | None,
    train_on_out_of_scope: bool,
    conflicts: str,
    shares: dict[str, float],
    threshold: float,
    drop_near_official: bool,
    seed: int,
) -> Prepared:
    """Check the rows of `tables`, leave out repeats and share the rest out over train, validation and test.

    Of the `unlabelled` rows those are left out that are near-duplicates of labelled ones, of test rows among others.

    `shares` gives the share of validation and of test, used for those that the data does not name itself. `conflicts`
    is "error" or "drop" (texts under two intents; official validation and test rows are never dropped for it).
    `drop_near_official` leaves out rows that are near-duplicates of an official test or validation row. Unless
    `train_on_out_of_scope`, rows of the `out_of_scope_intent` that train would get go to validation.

    Raises:
        ValueError: anything is wrong with the rows; all problems are listed in one message.

    """
    untrained = None if train_on_out_of_scope else out_of_scope_intent
    selection, problems = select_rows(tables, exclude_intents, conflicts)
    problems += check_out_of_scope(selection.kept, out_of_scope_intent)
    problems += check_official_intents(selection.kept, untrained)
    problems += check_official_trained(selection.kept, untrained)
    problems += check_unlabelled(unlabelled, untrained)
    raise_problems(problems)
    check_left(selection)
    new = without_known(unlabelled, [text for table in tables for text in table.texts], threshold)
    # Before near-duplicates of official rows go, which may be all rows of an intent.
    intents = sorted({example.intent for example in selection.kept})
    groups = near_duplicate_groups([example.text for example in selection.kept], threshold).tolist()
    already = len(selection.rejected)
    if drop_near_official:
        groups = leave_out_near_official(selection, groups, threshold)
    alike = Counter(example.intent for example, _ in selection.rejected[already:])
    raise_problems(check_enough(selection.kept, groups, shares, untrained, intents, alike))
    assigned = _assign(selection.kept, groups, intents, shares, seed)
    if untrained:
        assigned, groups = _hold_back(selection, assigned, groups, untrained, threshold)
    return Prepared(
        intents=intents,
        splits={split: _columns(selection.kept, assigned, split, intents) for split in SPLITS},
        rejected=[(e.file, e.row, e.text, e.intent, reason) for e, reason in _in_file_order(selection, tables)],
        metrics=_measure(selection, assigned, groups, intents, threshold) | count_unlabelled(unlabelled, new),
        unlabelled=new,
    )


def _assign(
    examples: Sequence[Example], groups: Sequence[int], intents: Sequence[str], shares: dict[str, float], seed: int
) -> list[str]:
    assigned = [example.split or "train" for example in examples]
    carved = carved_splits(examples, shares)
    pool = [position for position, split in enumerate(assigned) if split == "train"]
    if carved:
        label_of = {intent: label for label, intent in enumerate(intents)}
        wanted = {split: shares[split] for split in carved}
        try:
            found = stratified_group_split(
                [label_of[examples[position].intent] for position in pool],
                [groups[position] for position in pool],
                [examples[position].text for position in pool],
                {**wanted, "train": 1 - sum(wanted.values())},
                seed,
            )
        except TooFewGroupsError as error:
            raise ValueError(
                f"intent {intents[error.label]!r}: so many of its texts are near-duplicates of other intents' that"
                f" {', '.join([*wanted, 'train'])} cannot all have some; add texts, or raise"
                " prepare.near_duplicate_threshold"
            ) from None
        for position, split in zip(pool, found, strict=True):
            assigned[position] = split
    return assigned


def _hold_back(
    selection: Selection, assigned: Sequence[str], groups: Sequence[int], untrained: str, threshold: float
) -> tuple[list[str], list[int]]:
    """Move the training rows of `untrained` to validation; those alike to a row that stays in train are left out."""
    of_train = np.array([position for position, split in enumerate(assigned) if split == "train"])
    examples = [selection.kept[position] for position in of_train]
    stays = np.array([example.intent != untrained for example in examples])
    alike = like_any([example.text for example in examples], np.array(groups)[of_train], stays, threshold)
    moved = set(of_train[~stays].tolist())
    doomed = dict.fromkeys(of_train[alike].tolist(), "near-duplicate of a training row")
    kept = [position for position in range(len(assigned)) if position not in doomed]
    selection.reject(doomed)
    splits = ["validation" if position in moved else assigned[position] for position in kept]
    return splits, [groups[position] for position in kept]


def _columns(
    examples: Sequence[Example], assigned: Sequence[str], split: str, intents: Sequence[str]
) -> dict[str, list[Any]]:
    label_of = {intent: label for label, intent in enumerate(intents)}
    chosen = [example for example, its_split in zip(examples, assigned, strict=True) if its_split == split]
    return {
        "text": [example.text for example in chosen],
        "intent": [example.intent for example in chosen],
        "label": [label_of[example.intent] for example in chosen],
        "kind": [example.kind for example in chosen],
        "row": [example.row for example in chosen],
    }


def _in_file_order(selection: Selection, tables: Sequence[RawRows]) -> list[tuple[Example, str]]:
    rank = {table.path.as_posix(): position for position, table in enumerate(tables)}
    return sorted(selection.rejected, key=lambda item: (rank[item[0].file], item[0].row))


def _measure(
    selection: Selection, assigned: Sequence[str], groups: Sequence[int], intents: Sequence[str], threshold: float
) -> dict[str, Any]:
    counts = Counter((example.intent, split) for example, split in zip(selection.kept, assigned, strict=True))
    group_sizes = Counter(groups)
    texts = [example.text for example in selection.kept]
    sides_n = np.array([SPLITS.index(split) for split in assigned])
    leaked = sum(len(first) for first, _ in pairs_across(texts, np.array(groups), sides_n, threshold))
    split_sizes = Counter(assigned)
    reasons = Counter(reason for _, reason in selection.rejected)
    return {
        "rows": {split: split_sizes[split] for split in SPLITS},
        "rejected": {reason.replace(" ", "_").replace("-", "_"): reasons[reason] for reason in sorted(reasons)},
        "near_duplicate_groups": sum(size > 1 for size in group_sizes.values()),
        "leaked_pairs": leaked,
        # A list, which `dvc exp show` leaves out: it would be a column per intent and split.
        "rows_per_intent": [
            {"intent": intent, **{split: counts[intent, split] for split in SPLITS}} for intent in intents
        ],
    }
