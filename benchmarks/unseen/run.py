"""How the classifier does on utterances by authors who never saw the training data, where a car would act on them.

Reads models/classifier, data/tokenized/validation.parquet and data/heldout/{dev,final,second,third}.csv, writes
benchmarks/unseen/results.json. dev may be read to find weaknesses; the others are for figures alone: nothing is chosen
by them. Beside the thresholds that the classifier has, those of other limits are tried, likewise fitted on validation.

    python -m benchmarks.unseen.run
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from intents.bulk.loading import load_scorer
from intents.bulk.scoring import Scorer
from intents.calibrating import calibrate
from intents.calibrations import Calibration
from intents.deciding import decide
from intents.duplicates import normalise
from intents.predicting import answer_split
from intents.roles import Limits, choose_roles
from intents.scoring import share_interval

CLASSIFIER_DIR = Path("models/classifier")
HELDOUT_DIR = Path("data/heldout")
TRAINING_DATA = Path("data/raw/driver_intents.csv")
RESULTS_PATH = Path(__file__).with_name("results.json")
VALIDATION_PATH = Path("data/tokenized/validation.parquet")
LIMITS = (0.02, 0.01)  # calibrate.max_false_action_rate
NOTHING = "no_intent"
HARMLESS = ("chitchat", "other_request")  # all other kinds of no_intent are near misses


def share(chosen: Sequence[bool]) -> dict[str, Any]:
    """Return a share with its exact 95 % interval."""
    low, high = share_interval(sum(chosen), len(chosen), 0.95)
    return {
        "share": round(sum(chosen) / len(chosen), 4),
        "interval": [round(low, 4), round(high, 4)],
        "of": len(chosen),
    }


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def figures(rows: Sequence[dict[str, str]], answers: Sequence[str]) -> dict[str, Any]:
    """Return the shares of all rows answered rightly, of commands obeyed and of near misses acted on."""
    pairs = list(zip(rows, answers, strict=True))
    near_misses = [pair for pair in pairs if pair[0]["intent"] == NOTHING and pair[0]["kind"] not in HARMLESS]
    return {
        "accuracy": share([row["intent"] == answer for row, answer in pairs]),
        "commands_obeyed": share([row["intent"] == answer for row, answer in pairs if row["intent"] != NOTHING]),
        "near_misses_acted_on": share([answer != NOTHING for _, answer in near_misses]),
    }


def calibrations(scorer: Scorer) -> dict[str, Calibration]:
    """Return the classifier's own calibration, and those of `LIMITS`."""
    labels_n, logits_nc = answer_split(CLASSIFIER_DIR, VALIDATION_PATH)
    roles = choose_roles(scorer.intents, NOTHING, None, "class")
    found = {"as_shipped": scorer.calibration}
    for limit in LIMITS:
        found[f"max_false_action_rate={limit}"] = calibrate(labels_n, logits_nc, scorer.intents, roles, Limits(limit))
    return found


def main() -> None:
    """Answer the files, write the shares."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()  # no options
    scorer = load_scorer(CLASSIFIER_DIR)
    known = {normalise(row["text"]) for row in read(TRAINING_DATA)}
    ways = calibrations(scorer)
    results: dict[str, Any] = describe()
    for name in ("dev", "final", "second", "third"):
        rows = read(HELDOUT_DIR / f"{name}.csv")
        fresh = [row for row in rows if normalise(row["text"]) not in known]
        probabilities = scorer.probabilities([row["text"] for row in fresh])
        results[name] = {"left_out_as_known": len(rows) - len(fresh)} | {
            way: figures(fresh, decide(probabilities, scorer.intents, calibration)[0])
            for way, calibration in ways.items()
        }
    RESULTS_PATH.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
