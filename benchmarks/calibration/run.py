"""Which thresholds keep their promise on texts that did not choose them, and which scaling of probabilities is best.

Reads models/trained and data/tokenized/validation.parquet, nothing of the test split; prints tables for results.md.
Fitted on nine tenths of the validation rows and judged on the other tenth, all tenths in turn, repeatedly.

    python -m benchmarks.calibration.run [--checkpoint models/trained] [--repeats 20]
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.model_selection import StratifiedKFold

from benchmarks.machine import describe
from intents.answers import Answers
from intents.calibrating import calibrate, false_action_threshold, fit_temperature, log_odds
from intents.calibrations import Calibration
from intents.predicting import answer_split
from intents.roles import Limits, Roles, choose_roles
from intents.scoring import share_interval
from intents.tables import intents_of
from intents.trust import brier_score, calibration_error, reliability_table

VALIDATION_PATH = Path("data/tokenized/validation.parquet")
RATES = (0.005, 0.01, 0.02, 0.05)
Labels = NDArray[np.int64]
Logits = NDArray[np.float32]
Choice = Callable[[Labels, Logits, Sequence[str], Roles, float], Calibration]


def ours(labels_n: Labels, logits_nc: Logits, intents: Sequence[str], roles: Roles, rate: float) -> Calibration:
    """Use one threshold for all actions, floor(rate * (n + 1)) - 1 false actions allowed: the pipeline's way."""
    return calibrate(labels_n, logits_nc, intents, roles, Limits(rate))


def counted(labels_n: Labels, logits_nc: Logits, intents: Sequence[str], roles: Roles, rate: float) -> Calibration:
    """Use one threshold for all actions, floor(rate * n) false actions allowed: the rate holds on validation itself."""
    num_harmless = int(np.isin(labels_n, [intents.index(name) for name in roles.harmless]).sum())
    allowed = math.floor(rate * num_harmless + 1e-9)
    return calibrate(labels_n, logits_nc, intents, roles, Limits((allowed + 1) / (num_harmless + 1)))


def quantiles(labels_n: Labels, logits_nc: Logits, intents: Sequence[str], roles: Roles, rate: float) -> Calibration:
    """Use a threshold per intent, each with an equal share of the rate."""
    actions = [intent for intent in intents if intent not in roles.no_action]
    return calibrate(
        labels_n, logits_nc, intents, roles, Limits(None, stricter=dict.fromkeys(actions, rate / len(actions)))
    )


def budget(labels_n: Labels, logits_nc: Logits, intents: Sequence[str], roles: Roles, rate: float) -> Calibration:
    """Use thresholds per intent, those that obey most validation commands within floor(rate * n) false actions.

    A dynamic programme over intents and false actions spent.
    """
    temperature = fit_temperature(labels_n, logits_nc)
    odds_nc = log_odds(logits_nc, temperature)
    likeliest_n = odds_nc.argmax(1)
    harmless_n = np.isin(labels_n, [intents.index(name) for name in roles.harmless])
    most = math.floor(rate * int(harmless_n.sum()) + 1e-9)
    best: dict[int, tuple[int, dict[str, float]]] = {0: (0, {})}
    for intent in (name for name in intents if name not in roles.no_action):
        label = intents.index(intent)
        answered_n = likeliest_n == label
        false = np.sort(odds_nc[answered_n & harmless_n, label])[::-1]
        right = odds_nc[answered_n & (labels_n == label), label]
        found: dict[int, tuple[int, dict[str, float]]] = {}
        for spent, (obeyed, thresholds) in best.items():
            for more in range(min(most - spent, len(false)) + 1):
                least = float(false[more]) + 1e-6 if more < len(false) else -math.inf
                total = obeyed + int((right >= least).sum())
                if spent + more not in found or found[spent + more][0] < total:
                    found[spent + more] = (total, {**thresholds, intent: float(expit(least))})
        best = found
    _, thresholds = max(best.values(), key=lambda item: item[0])
    return Calibration(temperature, thresholds, roles.reject, tuple(roles.no_action))


CHOICES: dict[str, Choice] = {
    "common, (n + 1) rule (ours)": ours,
    "common, counted": counted,
    "per intent, equal shares": quantiles,
    "per intent, best budget": budget,
}


def tenths(labels_n: Labels, repeats: int) -> Iterator[tuple[Labels, Labels]]:
    """Yield (rows to fit on, rows to judge)."""
    for repeat in range(repeats):
        yield from StratifiedKFold(10, shuffle=True, random_state=repeat).split(labels_n, labels_n)


def compare_thresholds(intents: list[str], labels_n: Labels, logits_nc: Logits, roles: Roles, repeats: int) -> None:
    """Print how often each choice acts where it should not, and obeys where it should."""
    print("| limit | thresholds | held-out false actions | commands obeyed |\n|---|---|---|---|")
    for rate in RATES:
        for name, choose in CHOICES.items():
            false = harmless = obeyed = commands = 0
            for fitted, judged in tenths(labels_n, repeats):
                calibration = choose(labels_n[fitted], logits_nc[fitted], intents, roles, rate)
                answers = Answers(intents, [], [], labels_n[judged], logits_nc[judged], calibration)
                false += int(answers.acted_n[answers.harmless_n].sum())
                harmless += int(answers.harmless_n.sum())
                obeyed += int((answers.predicted_n == answers.labels_n)[~answers.harmless_n].sum())
                commands += int((~answers.harmless_n).sum())
            print(f"| {rate:.1%} | {name} | {false / harmless:.2%} | {obeyed / commands:.1%} |")


def compare_few_rows(intents: list[str], labels_n: Labels, logits_nc: Logits, roles: Roles, repeats: int) -> None:
    """Print what becomes of a limit that so few rows cannot show: the margin of false_action_threshold, or none."""
    print("\n| rows that ask for nothing | limit | false actions, no margin | with margin | obeyed, no margin | with |")
    print("|---|---|---|---|---|---|")
    odds_nc = log_odds(logits_nc, fit_temperature(labels_n, logits_nc))
    actions = [label for label, intent in enumerate(intents) if intent not in roles.no_action]
    harmless_n = np.isin(labels_n, [intents.index(name) for name in roles.harmless])
    answered_n, odds_n = np.isin(odds_nc.argmax(1), actions), odds_nc[:, actions].max(1)
    obeyed_n = answered_n & (odds_nc.argmax(1) == labels_n)
    random = np.random.default_rng(0)
    for few in (20, 40, 80):
        for expected in (0.2, 0.5, 0.8):
            rate = expected / (few + 1)
            found = []
            for _ in range(25 * repeats):
                chosen_n = ~harmless_n
                chosen_n[random.choice(np.flatnonzero(harmless_n), few, replace=False)] = True
                row = []
                for used in (1 / (few + 1), rate):
                    least = false_action_threshold(
                        odds_n[chosen_n], answered_n[chosen_n], harmless_n[chosen_n], used + 1e-12
                    )
                    row += [float((answered_n & (odds_n >= least))[~chosen_n].mean())]
                    row += [float((obeyed_n & (odds_n >= least))[~harmless_n].mean())]
                found.append(row)
            without, kept, margin, kept_margin = np.mean(found, axis=0)
            print(f"| {few} | {rate:.2%} | {without:.2%} | {margin:.2%} | {kept:.1%} | {kept_margin:.1%} |")


def vector_scaling(labels_n: Labels, logits_nc: Logits) -> Callable[[Logits], Logits]:
    """Return the scaling with a factor and an offset per intent, weakly regularised (Guo et al. 2017)."""
    num_labels = logits_nc.shape[1]

    def scale(parameters: NDArray[np.float64], logits: Logits) -> Logits:
        return logits * np.exp(parameters[:num_labels]) + parameters[num_labels:]

    def loss(parameters: NDArray[np.float64]) -> float:
        log_p_nc = log_softmax(scale(parameters, logits_nc), axis=1)
        return -float(log_p_nc[np.arange(len(labels_n)), labels_n].mean()) + 1e-4 * float((parameters**2).sum())

    fitted = minimize(loss, np.zeros(2 * num_labels), method="L-BFGS-B").x
    return lambda logits: scale(fitted, logits).astype(np.float32)


def compare_scalings(intents: list[str], labels_n: Labels, logits_nc: Logits, repeats: int) -> None:
    """Print log-loss, Brier score and calibration error of held-out rows."""
    scalings: dict[str, Callable[[Labels, Logits], Callable[[Logits], Logits]]] = {
        "none": lambda labels, logits: lambda new: new,
        "temperature (ours)": lambda labels, logits: lambda new: new / fit_temperature(labels, logits),
        "vector scaling": vector_scaling,
    }
    print("\n| scaling | log-loss | Brier | ECE | accuracy |\n|---|---|---|---|---|")
    for name, fit in scalings.items():
        found = []
        for start in range(repeats):
            scaled_nc = np.empty_like(logits_nc)
            for fitted, judged in StratifiedKFold(10, shuffle=True, random_state=start).split(labels_n, labels_n):
                scaled_nc[judged] = fit(labels_n[fitted], logits_nc[fitted])(logits_nc[judged])
            answers = Answers(intents, [], [], labels_n, scaled_nc, Calibration())
            log_p_nc = log_softmax(scaled_nc.astype(np.float64), axis=1)
            found.append(
                [
                    -log_p_nc[np.arange(len(labels_n)), labels_n].mean(),
                    brier_score(labels_n, answers.probabilities_nc),
                    calibration_error(reliability_table(answers)),
                    float(answers.likeliest_right_n.mean()),
                ]
            )
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in np.mean(found, axis=0)) + " |")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("models/trained"))
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    intents = intents_of(VALIDATION_PATH)
    labels_n, logits_nc = answer_split(options.checkpoint, VALIDATION_PATH)
    roles = choose_roles(intents, "auto", None, "class")
    num_harmless = int(np.isin(labels_n, [intents.index(name) for name in roles.harmless]).sum())
    print(f"{describe()}\n{len(labels_n)} validation rows, {num_harmless} of them ask for nothing\n")
    compare_thresholds(intents, labels_n, logits_nc, roles, options.repeats)
    for false in (0, 1, 5):
        low, high = share_interval(false, num_harmless, 0.95)
        print(f"\n{false} false actions in {num_harmless} rows: 95 % interval {low:.2%} to {high:.2%}")
    compare_few_rows(intents, labels_n, logits_nc, roles, options.repeats)
    compare_scalings(intents, labels_n, logits_nc, options.repeats)


if __name__ == "__main__":
    main()
