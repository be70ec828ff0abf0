"""Every pair of groups of results, and whether luck could make the difference between the two."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from intents.grouping import ACTIONS, Estimate, Group
from intents.significance import (
    Floats,
    bootstrap_p,
    bootstrap_scores,
    bootstrap_shares,
    difference_over_seeds,
    holm,
    mcnemar_p,
    percentile_interval,
)

_BOOTSTRAPS = (  # by the number of single runs in a pair
    "paired bootstrap over rows and seeds",
    "paired bootstrap over rows and seeds (a single run's seed taken to matter as the group's do)",
    "paired bootstrap",
)


@dataclass(frozen=True)
class Test:
    """The difference of two groups (second minus first) in one metric, and whether luck could make it."""

    __test__ = False  # not for pytest

    difference: Estimate
    p: float
    p_holm: float  # adjusted for all pairs of this comparison
    method: str


@dataclass(frozen=True)
class Pair:
    """Two groups on the same test rows."""

    first: str
    second: str
    accuracy: Test
    macro_f1: Test
    actions: dict[str, Test] = field(default_factory=dict)  # by name, where all results are of the same texts

    @property
    def tests(self) -> list[Test]:
        """All of them."""
        return [self.accuracy, self.macro_f1, *self.actions.values()]


def tested_pairs(groups: list[Group], confidence_level: float, num_samples: int, seed: int) -> list[Pair]:
    """Return every pair of groups with its tests; `num_samples` are those of the paired bootstrap."""
    if len(groups) < 2:
        return []
    first = groups[0].results[0]
    results = [result for group in groups for result in group.results]
    accuracy, macro_f1 = bootstrap_scores(
        first.labels_n, [result.predicted_n for result in results], len(first.intents), num_samples, seed
    )
    # Per metric its samples, and the rows that each result gets right or wrong, where it is a share of rows.
    resampled: dict[str, tuple[Floats, Sequence[NDArray[np.bool_]] | None]] = {
        "accuracy": (accuracy, [result.right_n for result in results]),
        "macro_f1": (macro_f1, None),
    }
    for metric in _tested_actions(groups):
        hits = [result.actions.hits(metric) for result in results if result.actions is not None]
        resampled[metric] = bootstrap_shares(hits, num_samples, seed), hits
    random = np.random.default_rng((seed, 1))
    ends = list(itertools.accumulate(len(group.results) for group in groups))
    parts = [slice(end - len(group.results), end) for end, group in zip(ends, groups, strict=True)]
    couples = list(itertools.combinations(range(len(groups)), 2))
    tests: dict[str, list[Test]] = {}
    for metric, (scores, rows) in resampled.items():
        found = []
        for a, b in couples:
            differences_s = difference_over_seeds(scores[parts[a]], scores[parts[b]], random)
            both = None if rows is None else (rows[parts[a].start], rows[parts[b].start])
            found.append(_test(groups[a], groups[b], metric, differences_s, both, confidence_level))
        adjusted = holm([p for _, p, _ in found])
        tests[metric] = [Test(d, p, q, how) for (d, p, how), q in zip(found, adjusted, strict=True)]
    acting = tests.keys() & ACTIONS.keys()
    return [
        Pair(
            groups[a].name,
            groups[b].name,
            tests["accuracy"][i],
            tests["macro_f1"][i],
            {metric: tests[metric][i] for metric in ACTIONS if metric in acting},
        )
        for i, (a, b) in enumerate(couples)
    ]


def _tested_actions(groups: Sequence[Group]) -> list[str]:
    """Return the metrics of what a car would do, if all results are of the same commands and other texts."""
    actions = [result.actions for group in groups for result in group.results]
    first = actions[0]
    if first is None or not all(other is not None and first.of_same_rows(other) for other in actions):
        return []
    return [metric for metric in ACTIONS if metric in groups[0].metrics]


def _test(
    first: Group,
    second: Group,
    metric: str,
    differences_s: Floats,
    rows: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
    confidence_level: float,
) -> tuple[Estimate, float, str]:
    """Return the difference, its p-value and the method; of single runs `rows` says what each gets right."""
    value = second.metrics[metric].value - first.metrics[metric].value
    difference = Estimate(value, *percentile_interval(differences_s, confidence_level))
    num_single = sum(len(group.results) == 1 for group in (first, second))
    if num_single == 2 and rows is not None:
        return difference, mcnemar_p(*rows), "exact McNemar"
    return difference, bootstrap_p(differences_s), _BOOTSTRAPS[num_single]
