"""Fits temperature and thresholds on validation, so that the classifier can be sure, and say nothing where it is not.

Reads models/trained and data/tokenized/validation.parquet, writes models/calibration and metrics/calibrate.json. The
stage `card` puts both models together, as models/classifier.

    python -m stages.calibrate
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from intents.answers import Answers
from intents.calibrating import allowed_false_actions, calibrate
from intents.calibrations import Calibration, write_calibration
from intents.cli import run
from intents.files import write_json
from intents.params import OutOfScopeParams, Params, load_params
from intents.roles import Limits, Roles, check_limits, choose_roles
from intents.scoring import rounded, share_interval
from intents.tables import intents_of
from intents.trust import action_metrics, before_after_table, threshold_table

TRAINED_DIR = Path("models/trained")
VALIDATION_PATH = Path("data/tokenized/validation.parquet")
CALIBRATION_DIR = Path("models/calibration")
METRICS_PATH = Path("metrics/calibrate.json")
ALSO_READS = ("prepare.out_of_scope_intent", "prepare.out_of_scope_use")  # dvc.yaml lists them
CONFIDENCE_LEVEL = 0.95
HARDLY = 0.5  # share of the commands obeyed without thresholds below which these are not what is wrong
MOSTLY = 0.8  # share of the commands obeyed from which on a strict threshold is no surprise to explain
FEW = 50  # texts: with fewer the threshold is a guess (20, drawn again and again, let 2.1 % through in place of 1 %)
Rate = Annotated[float, Field(gt=0, lt=1)]


class CalibrateParams(Params):
    """Section `calibrate` of params.yaml."""

    reject_intent: str | None
    max_false_action_rate: Rate | None
    max_error_rate: Rate | None
    stricter: dict[str, Rate]


def read_settings(intents: Sequence[str]) -> tuple[Roles, Limits]:
    """Return what params.yaml asks for of a classifier of `intents`."""
    params = load_params("calibrate", CalibrateParams)
    scope = load_params("prepare", OutOfScopeParams)
    roles = choose_roles(intents, params.reject_intent, scope.out_of_scope_intent, scope.out_of_scope_use)
    return roles, Limits(params.max_false_action_rate, params.max_error_rate, params.stricter)


def check_settings() -> None:
    """Raise ValueError where the settings of this stage are wrong for the data: `train` asks before it begins."""
    intents = intents_of(VALIDATION_PATH)
    roles, limits = read_settings(intents)
    labels = set(pq.read_table(VALIDATION_PATH, columns=["label"]).column("label").to_pylist())
    check_limits(limits, roles, intents, {intents[label] for label in labels})


def describe(answers: Answers, roles: Roles, limits: Limits) -> dict[str, Any]:
    """Return what metrics/calibrate.json says; its shares are those of the rows that chose the thresholds."""
    acting = action_metrics(answers, CONFIDENCE_LEVEL)
    harmless_n = np.isin(answers.labels_n, [answers.intents.index(name) for name in roles.harmless])
    num_harmless, num_false = int(harmless_n.sum()), int(answers.acted_n[harmless_n].sum())
    validation = {"commands_obeyed": acting["commands_obeyed"]} if acting else {}
    interval = []
    if num_harmless:
        validation["false_action_rate"] = num_false / num_harmless
        interval = rounded(list(share_interval(num_false, num_harmless, CONFIDENCE_LEVEL)))
    rate = limits.max_false_action_rate
    allowed = None if rate is None else allowed_false_actions(rate, num_harmless)  # None: no limit
    return {
        "temperature": answers.calibration.temperature,
        "threshold": min(answers.calibration.thresholds.values(), default=0.0),
        "validation": rounded(validation),
        "false_action_interval": interval,
        "budget": [
            {
                "intents": list(roles.harmless),
                "texts_that_ask_for_nothing": num_harmless,
                "false_actions_allowed": allowed,
            }
        ],
        "before_after": rounded(before_after_table(answers, CONFIDENCE_LEVEL)),
        "thresholds": threshold_table(answers),
    }


def warnings_about(metrics: dict[str, Any], max_false_action_rate: float) -> Iterator[str]:
    """Yield what a user should know of a threshold that rests on few texts; `metrics` are those of `describe`."""
    num_harmless = metrics["budget"][0]["texts_that_ask_for_nothing"]
    if 0 < num_harmless < FEW:
        yield (
            f"validation has only {num_harmless} texts that ask for nothing: on new ones the rate of false actions may"
            f" be several times the limit of {max_false_action_rate:.4g}"
        )
    plain = metrics["before_after"][0].get("commands_obeyed", 1)
    if plain < HARDLY:
        yield (
            f"without thresholds, too, only {plain:.3g} of the commands are obeyed: the classifier has not learnt them,"
            " and no threshold mends that"
        )
        return
    least = 1 / (num_harmless + 1)
    if num_harmless and max_false_action_rate < least and metrics["validation"].get("commands_obeyed", 1) < MOSTLY:
        yield (
            f"{num_harmless} texts that ask for nothing show no rate below {least:.3g}, and the threshold is so strict"
            " that few commands are obeyed: collect more such texts, or allow that rate"
            f" (-S calibrate.max_false_action_rate={1.01 * least:.3g})"
        )


def main() -> None:
    """Run the stage."""
    intents = intents_of(VALIDATION_PATH)
    roles, limits = read_settings(intents)
    from intents.predicting import answer_split

    answers = Answers(intents, [], [], *answer_split(TRAINED_DIR, VALIDATION_PATH), Calibration())
    calibration = calibrate(answers.labels_n, answers.logits_nc, answers.intents, roles, limits)
    answers = replace(answers, calibration=calibration, untrained=roles.untrained)
    write_calibration(CALIBRATION_DIR, calibration)
    metrics = describe(answers, roles, limits)
    write_json(METRICS_PATH, metrics)
    if limits.max_false_action_rate is not None:
        for line in warnings_about(metrics, limits.max_false_action_rate):
            print(f"warning: {line}")
    if not calibration.thresholds and not roles.harmless:
        unknown = "no intent is known to ask for nothing (-S calibrate.reject_intent=NAME)"
        if roles.no_action:
            name = roles.no_action[0]
            unknown = f"{name} is only a class (-S calibrate.reject_intent={name} limits what is acted on wrongly)"
        print(
            f"every text is answered: {unknown}, and no limit on wrong answers needs a threshold"
            " (-S calibrate.max_error_rate=0.05)"
        )
    found = [f"validation {name} {value}" for name, value in metrics["validation"].items()]
    print("; ".join([f"temperature {calibration.temperature}", f"least confidence {metrics['threshold']}", *found]))


if __name__ == "__main__":
    run(main)
