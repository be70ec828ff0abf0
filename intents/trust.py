"""Whether a classifier's confidence means something, and how often it acts where it should not.

Shapes: n examples, c intents, b bins.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intents.answers import Answers, Labels
from intents.headline import headline_metrics
from intents.scoring import rounded, share_interval

Floats = NDArray[np.floating[Any]]
Table = list[dict[str, Any]]
NUM_BINS = 15
_MOST_POINTS = 200  # of a curve


def brier_score(labels_n: Labels, probabilities_nc: Floats) -> float:
    """Return the mean squared distance between probabilities and truth, summed over intents: 0 to 2 (Brier 1950)."""
    true_nc = np.zeros(probabilities_nc.shape)
    true_nc[np.arange(len(labels_n)), labels_n] = 1
    return float(((probabilities_nc - true_nc) ** 2).sum(1).mean())


def reliability_table(answers: Answers, num_bins: int = NUM_BINS) -> Table:
    """Return mean confidence and share of right answers in bins of equally many examples, least confident first.

    It is the likeliest intent that is right or wrong here, thresholds aside, on intents that training has seen.
    """
    right_n, confidence_n = answers.likeliest_right_n[answers.trained_n], answers.confidence_n[answers.trained_n]
    order = np.argsort(confidence_n, kind="stable")
    bins = [chosen for chosen in np.array_split(order, num_bins) if len(chosen)]
    return [
        {
            "confidence": float(confidence_n[chosen].mean(dtype=np.float64)),
            "accuracy": float(right_n[chosen].mean()),
            "examples": len(chosen),
        }
        for chosen in bins
    ]


def calibration_error(reliability: Table) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy over the bins' examples.

    Bins of equal counts (adaptive) rather than of equal width, most of which hold next to nothing (Nixon et al. 2019,
    "Measuring calibration in deep learning"). A perfectly calibrated classifier scores above 0 too, by chance.
    """
    total = sum(row["examples"] for row in reliability)
    return sum(abs(row["confidence"] - row["accuracy"]) * row["examples"] for row in reliability) / total


def probability_metrics(answers: Answers) -> dict[str, float]:
    """Return log_loss (nats), brier and ece of the probabilities, over the intents that training has seen."""
    chosen = answers.trained_n
    labels_n, logits_nc = answers.labels_n[chosen], answers.logits_nc[chosen] / answers.calibration.temperature
    return {
        "log_loss": headline_metrics(labels_n, logits_nc)["log_loss"],
        "brier": brier_score(labels_n, answers.probabilities_nc[chosen]),
        "ece": calibration_error(reliability_table(answers)),
    }


def action_metrics(answers: Answers, confidence_level: float) -> dict[str, Any]:
    """Return how many commands are obeyed and how many texts that ask for nothing are acted on, with exact intervals.

    commands_obeyed is the share of the texts that ask for something whose answer is right; false_action_rate the share
    of those that ask for nothing and whose answer is an action; rejection_auroc how often a command has a higher
    probability of an action than a text that asks for nothing. Empty where the data lacks texts of either sort.
    """
    harmless_n = answers.harmless_n
    if harmless_n.all() or not harmless_n.any():
        return {}
    from sklearn.metrics import roc_auc_score  # as in intents.scoring: where it is used

    obeyed = int((answers.predicted_n == answers.labels_n)[~harmless_n].sum())
    false = int(answers.acted_n[harmless_n].sum())
    num_harmless = int(harmless_n.sum())
    num_commands = len(harmless_n) - num_harmless
    return {
        "commands_obeyed": obeyed / num_commands,
        "false_action_rate": false / num_harmless,
        "rejection_auroc": float(roc_auc_score(~harmless_n, answers.action_probability_n)),
        "commands_obeyed_interval": share_interval(obeyed, num_commands, confidence_level),
        "false_action_interval": share_interval(false, num_harmless, confidence_level),
    }


def chance_of_more(num_false: int, num_harmless: int, allowed: int, num_validation: int) -> float:
    """Return how probable so many false actions are, or more, where the texts are like those that chose the threshold.

    The threshold let `allowed` of `num_validation` texts that ask for nothing through, so that the rate on others of
    their kind has a Beta distribution of its own (Angelopoulos and Bates 2023, "Conformal prediction: a gentle
    introduction", section 3.2): the number among `num_harmless` of them is beta-binomial.
    """
    from scipy.stats import betabinom

    return float(betabinom.sf(num_false - 1, num_harmless, allowed + 1, num_validation - allowed))


def selective_metrics(answers: Answers) -> dict[str, float]:
    """Return coverage, the share of the texts whose likeliest intent is sure enough, and the share of these wrong."""
    kept_n = answers.kept_n
    wrong = float((~answers.likeliest_right_n)[kept_n].mean()) if kept_n.any() else 0.0
    return {"coverage": float(kept_n.mean()), "error_rate": wrong}


def before_after_table(answers: Answers, confidence_level: float) -> Table:
    """Return the metrics of the plain classifier (likeliest intent, softmax) and of the calibrated one."""
    rows = []
    for name, chosen in (("before", answers.uncalibrated), ("after", answers)):
        acting = action_metrics(chosen, confidence_level)
        rows.append(
            {
                "calibration": name,
                "accuracy": float((chosen.predicted_n == chosen.labels_n)[answers.answerable_n].mean()),
                **probability_metrics(chosen),
                **selective_metrics(chosen),
                **{key: value for key, value in acting.items() if not key.endswith("_interval")},
            }
        )
    return rows


def trust_tables(answers: Answers, confidence_level: float) -> dict[str, Table]:
    """Return every table of this module by name, rounded."""
    tables = {
        "before_after": before_after_table(answers, confidence_level),
        "reliability_before": reliability_table(answers.uncalibrated),
        "reliability_after": reliability_table(answers),
        "coverage_risk": coverage_table(answers),
        "actions": action_table(answers),
        "false_actions": false_action_table(answers, confidence_level),
    }
    # Thresholds are rounded as they were made: rounded anew, one that can just be reached may look as if none could.
    return {**{name: rounded(table) for name, table in tables.items()}, "thresholds": threshold_table(answers)}


def coverage_table(answers: Answers) -> Table:
    """Return the share of wrong answers among the surest ones, as more and more examples are answered."""
    order = np.argsort(-answers.confidence_n, kind="stable")
    wrong_n = np.cumsum(~answers.likeliest_right_n[order])
    return [{"coverage": k / len(order), "risk": float(wrong_n[k - 1] / k)} for k in _spread(len(order))]


def action_table(answers: Answers) -> Table:
    """Return what a common threshold would do, from the highest to none; empty where no text asks for nothing."""
    harmless_n = answers.harmless_n
    if harmless_n.all() or not harmless_n.any():
        return []
    plain = answers.uncalibrated
    order = np.argsort(-answers.confidence_n, kind="stable")
    obeyed_n = np.cumsum((answers.likeliest_right_n & ~harmless_n)[order])
    false_n = np.cumsum((plain.acted_n & harmless_n)[order])
    return [
        {
            "threshold": float(answers.confidence_n[order[k - 1]]),
            "false_action_rate": float(false_n[k - 1] / harmless_n.sum()),
            "commands_obeyed": float(obeyed_n[k - 1] / (~harmless_n).sum()),
        }
        for k in _spread(len(order))
    ]


def false_action_table(answers: Answers, confidence_level: float) -> Table:
    """Return the false actions per kind of text that asks for nothing, most first; empty where there are no kinds."""
    kind_n = np.asarray(answers.kinds)
    rows = []
    for kind in sorted(set(kind_n[answers.harmless_n].tolist()) - {""}):
        acted = answers.acted_n[answers.harmless_n & (kind_n == kind)]
        low, high = share_interval(int(acted.sum()), len(acted), confidence_level)
        row = {"kind": kind, "false_actions": int(acted.sum()), "texts": len(acted)}
        rows.append({**row, "rate": float(acted.mean()), "low": low, "high": high})
    return sorted(rows, key=lambda row: (-row["rate"], row["kind"]))


def threshold_table(answers: Answers) -> Table:
    """Return per intent with a threshold what it lets through: commands obeyed, commands there are, false actions."""
    rows = []
    for intent, threshold in answers.calibration.thresholds.items():
        label = answers.intents.index(intent)
        answered_n = answers.acted_n & (answers.predicted_n == label)
        commands_n = answers.labels_n == label
        rows.append(
            {
                "intent": intent,
                "threshold": threshold,
                "obeyed": int((answered_n & commands_n).sum()),
                "commands": int(commands_n.sum()),
                "false_actions": int((answered_n & answers.harmless_n).sum()),
            }
        )
    return rows


def _spread(count: int) -> list[int]:
    """Return up to _MOST_POINTS numbers from 1 to `count`, both included."""
    return sorted({int(number) for number in np.linspace(1, count, min(count, _MOST_POINTS)).round()})
