"""What distinguishes several classifiers that answered the same test rows, and whether it could be luck."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intents.calibrations import ABSTAIN
from intents.grouping import (
    ACTIONS,
    Group,
    Result,
    group_by_settings,
    rows_differ,
    same_answers,
    without_repeats,
)
from intents.listing import listed
from intents.pairing import Pair, tested_pairs
from intents.scoring import per_label_metrics


@dataclass(frozen=True)
class IntentScores:
    """F1 on one intent, by group (mean over seeds)."""

    intent: str
    examples: int
    f1: dict[str, float]


@dataclass(frozen=True)
class Flip:
    """A test row that the reference answers rightly and `group` wrongly, or the other way round.

    Of several seeds, most decide; `before_share` and `after_share` are the shares of them that are right.
    """

    group: str
    text: str
    intent: str
    kind: str
    before: str
    after: str
    before_share: float
    after_share: float
    confidence: float  # of the wrong answer

    @property
    def broken(self) -> bool:
        """Whether it went from right to wrong."""
        return self.before_share > self.after_share


@dataclass(frozen=True)
class Comparison:
    """Everything there is to say; the first group is the reference."""

    groups: list[Group]
    pairs: list[Pair]
    intents: list[IntentScores]
    flips: list[Flip]
    notes: list[str]
    confidence_level: float
    num_rows: int


def compare(
    results: Sequence[Result],
    confidence_level: float,
    num_samples: int,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare `results` on their common test rows; the group of the first result is the reference.

    `num_samples` are the samples of the paired bootstrap.

    Raises:
        ValueError: the test rows or the intents of two results differ.

    """
    for result in results[1:]:
        if reason := rows_differ(results[0], result):
            raise ValueError(reason)
    distinct, repeated = without_repeats(results)
    groups = group_by_settings(distinct, confidence_level)
    pairs = tested_pairs(groups, confidence_level, num_samples, seed)
    least = 2 * len(pairs) / (num_samples + 1)
    too_few = [
        f"{len(pairs)} pairs and {num_samples} bootstrap samples: no p-value of macro-F1 can fall below"
        f" {least:.2g}; --bootstrap-samples takes more"
    ]
    return Comparison(
        groups=groups,
        pairs=pairs,
        intents=_score_intents(groups),
        flips=sorted(
            (flip for group in groups[1:] for flip in _find_flips(groups[0], group)),
            key=lambda flip: (not flip.broken, -flip.confidence, flip.text),
        ),
        notes=[
            *notes,
            *repeated,
            *(too_few if least > 1 - confidence_level else []),
            *_about_seeds(groups, pairs, confidence_level),
            *_about_thresholds(groups, pairs),
        ],
        confidence_level=confidence_level,
        num_rows=len(results[0].texts),
    )


def _about_seeds(groups: Sequence[Group], pairs: Sequence[Pair], confidence_level: float) -> list[str]:
    """Return a note where two single runs are told apart: by rows, for nothing shows what their seeds are worth."""
    single = {group.name: group.results[0] for group in groups if len(group.results) == 1}
    apart = [
        f"{pair.first} and {pair.second}"
        for pair in pairs
        if {pair.first, pair.second} <= single.keys()
        and not same_answers(single[pair.first], single[pair.second])  # else one training, with other thresholds
        and min(test.p_holm for test in pair.tests) < 1 - confidence_level
    ]
    if not apart:
        return []
    return [
        f"one seed each: {listed(apart, 3)} are different classifiers; whether their settings or their seeds make it,"
        " several seeds show (make sweep-seeds)"
    ]


def _about_thresholds(groups: Sequence[Group], pairs: Sequence[Pair]) -> list[str]:
    """Return notes where results differ in what a metric does not look at, or in what it is taken over."""
    notes = []
    if any(group.metrics[metric].low is None for group in groups for metric in set(ACTIONS) & group.metrics.keys()):
        notes.append(
            "commands obeyed and false actions of single runs have intervals at their evaluate.confidence_level alone"
        )
    if pairs and ACTIONS.keys() <= groups[0].metrics.keys() and not pairs[0].actions:
        notes.append(
            "commands obeyed and false actions are not tested: the results do not all say what asks for nothing, or not"
            " the same"
        )
    by_threshold = {group.name for group in groups if _answers_by_threshold(group.results[0])}
    if any(name.startswith("calibrate.") for group in groups for name in group.changes) and not by_threshold:
        notes.append(
            "accuracy and macro-F1 judge the likeliest intents: what calibrate.* changes is seen in commands obeyed,"
            " false actions and coverage (dvc exp show)"
        )
    if 0 < len(by_threshold) < len(groups):
        notes.append(
            f"the log-loss of {', '.join(sorted(by_threshold))} leaves out the out-of-scope rows"
            " (prepare.out_of_scope_use: threshold), that of the others does not: do not compare them by it"
        )
    return notes


def _answers_by_threshold(result: Result) -> bool:
    """Return whether training saw none of the out-of-scope rows, which a threshold alone recognises."""
    settings = result.settings
    return (
        settings.get("prepare.out_of_scope_intent") is not None
        and settings.get("prepare.out_of_scope_use") == "threshold"
    )


def _score_intents(groups: list[Group]) -> list[IntentScores]:
    """Return the scores of each intent, those that changed most first."""
    first = groups[0].results[0]
    f1 = {
        group.name: np.mean([[row["f1"] for row in _per_intent(result)] for result in group.results], axis=0)
        for group in groups
    }
    support = np.bincount(first.labels_n, minlength=len(first.intents))
    rows = [
        IntentScores(intent, int(support[i]), {name: float(scores[i]) for name, scores in f1.items()})
        for i, intent in enumerate(first.intents)
        if support[i]
    ]
    reference = groups[0].name
    return sorted(rows, key=lambda row: -max(abs(score - row.f1[reference]) for score in row.f1.values()))


def _per_intent(result: Result) -> list[dict[str, float]]:
    return per_label_metrics(result.labels_n, result.predicted_n, len(result.intents))


def _find_flips(reference: Group, group: Group) -> list[Flip]:
    """Return the rows that most seeds of one answer rightly and most seeds of the other wrongly."""
    before, after = (np.mean([result.right_n for result in g.results], axis=0) for g in (reference, group))
    flips = []
    for i in np.flatnonzero((before - 0.5) * (after - 0.5) < 0).tolist():  # of a tie no one knows
        wrong = group if before[i] > after[i] else reference
        confidences = [result.confidence_n[i] for result in wrong.results if not result.right_n[i]]
        first = reference.results[0]
        flips.append(
            Flip(
                group=group.name,
                text=first.texts[i],
                intent=first.intents[first.labels_n[i]],
                kind=first.kinds[i],
                before=_answer(reference, i, before[i] > 0.5),
                after=_answer(group, i, after[i] > 0.5),
                before_share=float(before[i]),
                after_share=float(after[i]),
                confidence=float(np.mean(confidences)),
            )
        )
    return flips


def _answer(group: Group, row: int, right: bool) -> str:
    """Return the answer that most seeds give to a row, of those that are `right` or of those that are not."""
    answers = [int(result.predicted_n[row]) for result in group.results if result.right_n[row] == right]
    label, _ = Counter(answers).most_common(1)[0]
    intents = group.results[0].intents
    return intents[label] if label < len(intents) else ABSTAIN
