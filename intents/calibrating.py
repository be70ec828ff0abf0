"""Fits a calibration on validation logits: a temperature, and the least confidence of an answer for a stated risk.

Shapes: n validation texts, c intents. Confidences are handled as log-odds, log(p / (1 - p)): probabilities near 1 lie
too close together to compare.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from intents.calibrations import Calibration
from intents.roles import Limits, Roles, check_limits

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_TEMPERATURES = (0.05, 20.0)
_DIGITS = 6  # of a threshold
_UNREACHABLE = 1.01


def calibrate(
    labels_n: Labels, logits_nc: NDArray[np.float32], intents: Sequence[str], roles: Roles, limits: Limits
) -> Calibration:
    """Return the temperature and thresholds that suit the validation split.

    Raises:
        ValueError: as `check_limits`, or no threshold keeps a limit.

    """
    label_of = {intent: label for label, intent in enumerate(intents)}
    trained_n, harmless_n = (
        np.isin(labels_n, [label_of[intent] for intent in chosen])
        for chosen in (set(intents) - set(roles.untrained), roles.harmless)
    )
    actions = roles.actions(intents)
    check_limits(limits, roles, intents, {intents[label] for label in np.unique(labels_n)})
    temperature = fit_temperature(labels_n[trained_n], logits_nc[trained_n])
    odds_nc = log_odds(logits_nc, temperature)
    common = _least_log_odds(labels_n, odds_nc, [label_of[intent] for intent in actions], harmless_n, limits)
    thresholds = {}
    for intent in actions:
        least = common
        if intent in limits.stricter:
            rate, guards_actions = limits.stricter[intent], bool(harmless_n.any())
            own = Limits(rate, None) if guards_actions else Limits(None, rate)
            name = f"stricter.{intent}"
            least = _least_log_odds(labels_n, odds_nc, [label_of[intent]], harmless_n, own, common, name)
        if least > -math.inf:
            thresholds[intent] = _as_threshold(least)
    return Calibration(temperature, thresholds, roles.reject, tuple(roles.no_action))


def fit_temperature(labels_n: Labels, logits_nc: NDArray[np.float32]) -> float:
    """Return the temperature that minimises the log-loss (Guo et al. 2017, "On calibration of modern neural networks").

    The targets take 1 / (n + 2) from the true intent, as Platt 1999 does, and spread it over all alike: n right answers
    out of n do not show that the next is right for certain.
    """
    from scipy.optimize import minimize_scalar  # takes half a second

    num_rows, num_labels = logits_nc.shape
    doubt = 1 / (num_rows + 2)
    logits = logits_nc.astype(np.float64)
    target_nc = np.full(logits.shape, doubt / num_labels)
    target_nc[np.arange(num_rows), labels_n] += 1 - doubt

    def loss(log_temperature: float) -> float:
        return -float((target_nc * log_softmax(logits / math.exp(log_temperature), axis=1)).sum())

    low, high = (math.log(bound) for bound in _TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return round(math.exp(found.x), 4)


def log_odds(logits_nc: NDArray[np.float32], temperature: float) -> Floats:
    """Return log(p / (1 - p)) of every probability, (n, c)."""
    log_p_nc = log_softmax(logits_nc.astype(np.float64) / temperature, axis=1)
    return log_p_nc - np.log(-np.expm1(np.minimum(log_p_nc, -1e-15)))


def _least_log_odds(
    labels_n: Labels,
    odds_nc: Floats,
    labels: Sequence[int],
    harmless_n: Flags,
    limits: Limits,
    least: float = -math.inf,
    setting: str = "max_error_rate",
) -> float:
    """Return the common threshold of the answers `labels`, in log-odds, `least` or more.

    `setting` is named where there is none.
    """
    likeliest_n = odds_nc.argmax(1)
    answered_n = np.isin(likeliest_n, labels)
    odds_n = odds_nc[:, list(labels)].max(1)
    if limits.max_false_action_rate is not None and harmless_n.any():
        least = max(least, false_action_threshold(odds_n, answered_n, harmless_n, limits.max_false_action_rate))
    if limits.max_error_rate is not None:
        wrong_n = likeliest_n != labels_n
        try:
            least = error_threshold(odds_n[answered_n], wrong_n[answered_n], limits.max_error_rate, least)
        except ValueError as error:
            remedy = "null to answer everything" if setting == "max_error_rate" else "remove it"
            raise ValueError(f"calibrate.{setting}: {error}; set a higher rate, or {remedy}") from None
    return least


def allowed_false_actions(rate: float, num_harmless: int) -> int:
    """Return how many false actions on `num_harmless` validation texts keep the expected rate on new ones.

    One fewer than rate * (n + 1): the next text is as likely as any of the n to be the one that comes through
    (conformal risk control, Angelopoulos et al. 2024, for a loss that is 0 or 1).
    """
    return max(0, math.floor(rate * (num_harmless + 1) + 1e-9) - 1)


def false_action_threshold(odds_n: Floats, answered_n: Flags, harmless_n: Flags, rate: float) -> float:
    """Return the log-odds from which on an answer is expected to be a false action in at most `rate` of such texts.

    `odds_n` are those of the likeliest action, `answered_n` says where it is the answer, and `harmless_n` marks the
    texts that ask for nothing. Where they are too few to show so small a rate even without a false action, the
    threshold lies above the surest of them by as much as the odds of an error must shrink.
    """
    expected = rate * (int(harmless_n.sum()) + 1)
    false = np.sort(odds_n[harmless_n & answered_n])[::-1]
    allowed = allowed_false_actions(rate, int(harmless_n.sum()))
    if expected < 1:
        surest = float(odds_n[harmless_n].max())
        return max(_just_above(surest, odds_n[answered_n]), surest - math.log(expected))
    return _just_above(float(false[allowed]), odds_n[answered_n]) if len(false) > allowed else -math.inf


def error_threshold(odds_n: Floats, wrong_n: Flags, rate: float, least: float = -math.inf) -> float:
    """Return the lowest log-odds, `least` or more, above which at most `rate` of the answers are wrong.

    One wrong answer more is counted. Above a higher threshold the share may be larger: the surest answers may be
    wrong. Where no answer is as sure as `least`, none can be wrong.

    Raises:
        ValueError: so few answers cannot show so small a rate.

    """
    order = np.argsort(-odds_n, kind="stable")
    sorted_n = odds_n[order]
    bound_n = (np.cumsum(wrong_n[order]) + 1) / (np.arange(len(order)) + 2)
    last_of_its_odds = np.append(sorted_n[:-1] > sorted_n[1:], True)[: len(order)]
    possible = last_of_its_odds & (sorted_n >= least)
    if least > -math.inf and not possible.any():
        return least
    kept = np.flatnonzero((bound_n <= rate) & possible)
    if not len(kept):
        raise ValueError(
            f"{rate} cannot be kept: on {int((sorted_n >= least).sum())} validation answers the least that any"
            f" threshold shows is {bound_n[possible].min(initial=1):.4f}"
        )
    if kept[-1] == len(order) - 1:
        return least
    return max(least, float(sorted_n[kept[-1] : kept[-1] + 2].mean()))


def _just_above(value: float, others: Floats) -> float:
    """Return the middle between `value` and the next of `others`; where there is none, half the odds of an error."""
    surer = others[others > value]
    return (value + float(surer.min())) / 2 if len(surer) else value + math.log(2)


def _as_threshold(least_log_odds: float) -> float:
    """Return the probability, rounded up; where it rounds to 1, one that no answer reaches."""
    scale = 10**_DIGITS
    threshold = math.ceil(float(expit(least_log_odds)) * scale) / scale
    return _UNREACHABLE if threshold >= 1 else threshold
