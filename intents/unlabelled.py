"""Texts without labels, for self-training: which of them are new, and when there may be none."""

from collections.abc import Sequence
from typing import Any

from intents.duplicates import normalise, unlike_known
from intents.problems import Problem
from intents.records import RawRows

_NO_LABEL = -1


def check_unlabelled(unlabelled: RawRows, untrained: str | None) -> list[Problem]:
    """Return what is wrong with the texts, and a problem where some could be of the intent that is not trained on."""
    problems = list(unlabelled.problems)
    if untrained and len(unlabelled):
        problems.append(
            Problem(
                "prepare.unlabelled_source: with prepare.out_of_scope_use=threshold none of the texts in"
                f" {unlabelled.path} could be taken for {untrained!r}, all would be learnt as another intent; set it to"
                " class or both, or unlabelled_source to data/none"
            )
        )
    return problems


def without_known(unlabelled: RawRows, known: Sequence[str], threshold: float) -> dict[str, list[Any]]:
    """Return the columns of those `unlabelled` texts, each once, that are no near-duplicate of a `known` one.

    Raises:
        ValueError: there are texts, and none of them is left.

    """
    first: dict[str, int] = {}
    for place in unlike_known(unlabelled.texts, known, threshold)[0].tolist():
        first.setdefault(normalise(unlabelled.texts[place]), place)
    if len(unlabelled) and not first:
        raise ValueError(
            f"prepare.unlabelled_source: every text in {unlabelled.path} is much like a labelled row; set it to"
            " data/none"
        )
    chosen = first.values()
    return {
        "text": [unlabelled.texts[place] for place in chosen],
        "intent": [""] * len(chosen),
        "label": [_NO_LABEL] * len(chosen),
        "kind": [""] * len(chosen),
        "row": [unlabelled.numbers[place] for place in chosen],
    }


def count_unlabelled(unlabelled: RawRows, new: dict[str, list[Any]]) -> dict[str, Any]:
    """Return what metrics say about unlabelled texts: nothing where there are none."""
    num_new = len(new["text"])
    return {"unlabelled": {"rows": num_new, "left_out": len(unlabelled) - num_new}} if len(unlabelled) else {}
