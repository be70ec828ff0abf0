"""Results of revisions of the pipeline: whether they may be compared, and which differ in seeds alone."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intents.scoring import Labels, macro_f1_interval, share_interval
from intents.significance import student_interval

HEADLINE = ("accuracy", "macro_f1", "log_loss")
# What a car would do, thresholds included, and the interval of each: where there are texts that ask for nothing.
ACTIONS = {"commands_obeyed": "commands_obeyed_interval", "false_action_rate": "false_action_interval"}
_SAMPLES = 2000  # of the bootstrap, where a pipeline has no evaluate.bootstrap_samples


@dataclass(frozen=True)
class Actions:
    """What a car would do with all n test rows, thresholds included, ordered by text."""

    texts: Sequence[str]
    harmless_n: NDArray[np.bool_]  # asks for nothing
    obeyed_n: NDArray[np.bool_]  # the answer is right
    acted_n: NDArray[np.bool_]  # the answer asks for something

    def hits(self, metric: str) -> NDArray[np.bool_]:
        """Return for each text that the metric looks at whether it counts."""
        return self.obeyed_n[~self.harmless_n] if metric == "commands_obeyed" else self.acted_n[self.harmless_n]

    def of_same_rows(self, other: "Actions") -> bool:
        """Whether the same texts ask for something, and the same for nothing."""
        return list(self.texts) == list(other.texts) and np.array_equal(self.harmless_n, other.harmless_n)


@dataclass(frozen=True)
class Result:
    """What one revision of the pipeline answered to its n test rows, ordered by text, and what made it."""

    name: str
    settings: dict[str, Any]  # dotted names
    sources: dict[str, str]  # hashes of the code and the raw data
    metrics: dict[str, Any]  # the section `test` of metrics/evaluate.json
    intents: Sequence[str]
    texts: Sequence[str]
    kinds: Sequence[str]
    labels_n: Labels
    predicted_n: Labels  # c, the number of intents, stands for an abstention
    confidence_n: NDArray[np.float32]
    actions: Actions | None = None  # None: an older pipeline, which did not say what asks for nothing

    @property
    def seeds(self) -> dict[str, Any]:
        """The settings that only decide how chance falls."""
        return {key: value for key, value in self.settings.items() if key.split(".")[-1] == "seed"}

    @property
    def right_n(self) -> NDArray[np.bool_]:
        """Whether each test row was answered rightly."""
        right: NDArray[np.bool_] = self.labels_n == self.predicted_n
        return right


@dataclass(frozen=True)
class Estimate:
    """A number and, where there is one, its interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """Results that differ in seeds, and in nothing else; mostly one."""

    name: str
    results: list[Result] = field(repr=False)
    metrics: dict[str, Estimate]  # of one result: over test rows; of several: mean, and t interval over seeds
    deviation: dict[str, float]  # standard deviation over seeds, empty for one result
    changes: dict[str, tuple[Any, Any]]  # what differs from the reference: its value, this one's


def rows_differ(first: Result, second: Result) -> str:
    """Return why no test between the two would mean anything, or nothing if their test rows are the same."""
    names = f"{first.name!r} and {second.name!r}"
    if list(first.intents) != list(second.intents):
        odd = ", ".join(sorted(set(first.intents) ^ set(second.intents))) or "another order"
        reason = f"the intents of {names} differ ({odd}), so their answers cannot be compared"
        return reason + _blame(first, second)
    rows = [Counter(zip(result.texts, result.labels_n.tolist(), strict=True)) for result in (first, second)]
    only = [sorted((rows[i] - rows[1 - i]).elements()) for i in (0, 1)]
    if not any(only):
        return ""
    example = next(text for part in only for text, _ in part)
    return (
        f"the test rows of {names} differ ({len(first.texts)} and {len(second.texts)} rows,"
        f" {len(only[0])} and {len(only[1])} of them only there, such as {example!r}),"
        f" so no test between them would mean anything{_blame(first, second)}"
    )


def _blame(first: Result, second: Result) -> str:
    # The reject intent decides whether rows of one that is not trained can be answered rightly, and so count.
    reasons = ("prepare.", "data/", "calibrate.reject_intent")
    keys = [key for key in changes(first, second) if key.startswith(reasons)]
    return f"; give both the same {', '.join(keys)}" if keys else "; give both the same data"


def changes(first: Result, second: Result) -> dict[str, tuple[Any, Any]]:
    """Return what differs between the two apart from seeds: settings, and hashes of code and raw data."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*first.settings, *second.settings]):
        values = first.settings.get(key), second.settings.get(key)
        if values[0] != values[1] and key not in {**first.seeds, **second.seeds}:
            changed[key] = values
    for path in dict.fromkeys([*first.sources, *second.sources]):
        hashes = first.sources.get(path, "none"), second.sources.get(path, "none")
        if hashes[0] != hashes[1]:
            changed[path] = hashes[0][:7], hashes[1][:7]
    return changed


def without_repeats(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Return the results without those that say the same thing twice, which would count a seed twice.

    Not all seeds reach the answers, that of the evaluation for instance: equal answers and confidences decide.
    """
    kept: list[Result] = []
    notes = []
    for result in results:
        same = next((k for k in kept if not changes(k, result) and same_answers(k, result)), None)
        if same is None:
            kept.append(result)
            continue
        seeds = [key for key in {**same.seeds, **result.seeds} if same.seeds.get(key) != result.seeds.get(key)]
        but = f" but for {', '.join(seeds)}" if seeds else ""
        notes.append(
            f"{result.name} is the same as {same.name}: same settings{but}, same code and answers; counted once"
        )
    return kept, notes


def same_answers(first: Result, second: Result) -> bool:
    """Whether one classifier gave both: the likeliest intents and their probabilities are equal."""
    return np.array_equal(first.predicted_n, second.predicted_n) and np.array_equal(
        first.confidence_n, second.confidence_n
    )


def group_by_settings(results: Sequence[Result], confidence_level: float) -> list[Group]:
    """Return the groups: the reference first, the others by falling accuracy."""
    members: list[list[Result]] = []
    for result in results:
        # The same seed again, on other hardware for instance, says nothing of what another seed would give.
        alike = (group for group in members if all(one.seeds != result.seeds for one in group))
        home = next((group for group in alike if not changes(group[0], result)), None)
        if home is None:
            members.append([result])
        else:
            home.append(result)
    acting = [metric for metric in ACTIONS if all(metric in result.metrics for result in results)]
    groups = [_summarise(group, results[0], [*HEADLINE, *acting], confidence_level) for group in members]
    return [groups[0], *sorted(groups[1:], key=lambda group: -group.metrics["accuracy"].value)]


def _summarise(results: list[Result], reference: Result, wanted: Sequence[str], confidence_level: float) -> Group:
    name = results[0].name if len(results) == 1 else f"{results[0].name} ({len(results)} seeds)"
    metrics, deviation = {}, {}
    for metric in wanted:
        values = [float(result.metrics[metric]) for result in results]
        if len(results) == 1:
            interval = _row_interval(results[0], metric, confidence_level)
        else:
            interval = student_interval(values, confidence_level)
            most = math.inf if metric == "log_loss" else 1.0
            interval = max(0.0, interval[0]), min(most, interval[1])
            deviation[metric] = float(np.std(values, ddof=1))
        metrics[metric] = Estimate(float(np.mean(values)), *interval)
    return Group(name, results, metrics, deviation, changes(reference, results[0]))


def _row_interval(result: Result, metric: str, confidence_level: float) -> tuple[float, float] | tuple[None, None]:
    """Return the interval over test rows of a metric: the evaluation's own where it has that level."""
    settings, evaluated = result.settings, result.metrics.get(ACTIONS.get(metric, f"{metric}_interval"))
    if evaluated is not None and settings.get("evaluate.confidence_level") == confidence_level:
        return evaluated[0], evaluated[1]
    if metric == "accuracy":
        return share_interval(int(result.right_n.sum()), len(result.labels_n), confidence_level)
    if metric == "macro_f1":
        samples, seed = settings.get("evaluate.bootstrap_samples", _SAMPLES), settings.get("evaluate.seed", 0)
        labels = result.labels_n, result.predicted_n, len(result.intents)
        return macro_f1_interval(*labels, confidence_level, samples, seed)
    if metric in ACTIONS and result.actions is not None:
        hits_n = result.actions.hits(metric)
        return share_interval(int(hits_n.sum()), len(hits_n), confidence_level)
    return None, None
