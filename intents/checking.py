"""What can be wrong with rows that are well formed each on its own: every check returns its problems."""

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from intents.problems import Problem


@dataclass(frozen=True, slots=True)
class Example:
    """One row that passed the checks; `split` is set where the data names an official one, else empty."""

    text: str
    intent: str
    kind: str
    split: str
    file: str
    row: int


def check_splits(examples: Sequence[Example]) -> list[Problem]:
    """Return a problem for each row without a split in a file whose other rows have one."""
    with_split = {example.file for example in examples if example.split}
    return [
        Problem("no split, where other rows of the file have one", example.file, example.row)
        for example in examples
        if not example.split and example.file in with_split
    ]


def check_spellings(examples: Sequence[Example]) -> list[Problem]:
    """Return a problem for each intent that is written in several ways which look the same."""
    return [
        Problem(
            f"the intents {' and '.join(map(ascii, alike))} look the same"
            f" ({unicodedata.normalize('NFC', alike[0])}), but are written with different characters (Unicode NFC and"
            " NFD); write both alike"
        )
        for alike in _alike({example.intent for example in examples}, partial(unicodedata.normalize, "NFC"))
    ]


def nearly_same(intents: Collection[str]) -> list[list[str]]:
    """Return the groups of intents that are one name but for case, blanks and punctuation: Billing and billing."""
    return _alike(intents, lambda intent: "".join(filter(str.isalnum, intent.casefold())) or intent)


def _alike(intents: Collection[str], form: Callable[[str], str]) -> list[list[str]]:
    """Return the groups of several intents that have the same `form`."""
    groups: dict[str, list[str]] = {}
    for intent in sorted(intents):
        groups.setdefault(form(intent), []).append(intent)
    return [alike for alike in groups.values() if len(alike) > 1]


def check_excluded(examples: Sequence[Example], exclude_intents: Sequence[str]) -> list[Problem]:
    """Return a problem for each intent to exclude that the data lacks."""
    known = sorted({example.intent for example in examples})
    return [
        Problem(
            f"prepare.exclude_intents: the data has no intent {intent!r}; it has: {', '.join(known)}"
            " (set it to [] to exclude none)"
        )
        for intent in exclude_intents
        if intent not in known
    ]


def check_out_of_scope(examples: Sequence[Example], out_of_scope_intent: str | None) -> list[Problem]:
    """Return a problem where the data lacks the out-of-scope intent."""
    known = sorted({example.intent for example in examples})
    if out_of_scope_intent is None or out_of_scope_intent in known:
        return []
    return [
        Problem(
            f"prepare.out_of_scope_intent: the data has no intent {out_of_scope_intent!r}; it has: {', '.join(known)}"
            " (set it to null where none of them is out of scope)"
        )
    ]


def is_official(example: Example) -> bool:
    """Return whether the data names the example for validation or test."""
    return example.split in ("validation", "test")


def check_official_intents(examples: Sequence[Example], untrained: str | None) -> list[Problem]:
    """Return a problem for each official row of an intent without training rows; `untrained` needs none."""
    known = {example.intent for example in examples if not is_official(example)} | {untrained}
    return [
        Problem(f"unknown intent {example.intent!r}, no training row has it", example.file, example.row)
        for example in examples
        if is_official(example) and example.intent not in known
    ]


def check_official_trained(examples: Sequence[Example], untrained: str | None) -> list[Problem]:
    """Return a problem for each official split that has rows of the intent that is not trained on alone."""
    intents_of = {split: {e.intent for e in examples if e.split == split} for split in ("validation", "test")}
    return [
        Problem(
            f"all official {split} rows are {untrained!r}, which prepare.out_of_scope_use=threshold keeps from"
            " training: nothing can be judged by them; add rows of other intents, or set it to both"
        )
        for split, intents in intents_of.items()
        if untrained and intents == {untrained}
    ]


def carved_splits(examples: Sequence[Example], shares: dict[str, float]) -> list[str]:
    """Return the splits that the data does not name itself, in the order in which they are filled."""
    official = {example.split for example in examples}
    return [split for split in ("test", "validation") if split in shares and split not in official]


def check_enough(
    examples: Sequence[Example],
    groups: Sequence[int],
    shares: dict[str, float],
    untrained: str | None,
    intents: Collection[str],
    alike: Mapping[str, int],
) -> list[Problem]:
    """Return a problem for each of `intents` with too few examples for the splits, and where too few are trained.

    `alike` are how many of each intent were left out as near-duplicates of official rows.
    """
    splits = [*carved_splits(examples, shares), "train"]
    present = {example.intent for example in examples}
    found: dict[str, list[int]] = {intent: [] for intent in intents}
    for example, group in zip(examples, groups, strict=True):
        if not is_official(example):
            found[example.intent].append(group)
    problems = [
        Problem(
            f"intent {intent!r} has {len(its_groups)} example(s), in {len(set(its_groups))} group(s) linked by"
            f" near-duplicates; it needs {len(splits)} groups, one each for {', '.join(splits)}: add other examples,"
            + (" raise prepare.near_duplicate_threshold," if len(its_groups) >= len(splits) else "")
            + (
                f" set prepare.near_duplicates_of_official=keep ({alike[intent]} were left out as such),"
                if alike.get(intent)
                else ""
            )
            + " or list it in prepare.exclude_intents"
        )
        for intent, its_groups in sorted(found.items())
        if len(set(its_groups)) < len(splits)
        and not (intent == untrained and intent in present and splits == ["train"])
    ]
    num_trained = len(found.keys() - {untrained})
    if num_trained < 2:
        problems.append(Problem(f"the data has {num_trained} intent(s) to train on; a classifier needs at least 2"))
    return problems
