"""How the classifier does on utterances by authors who never saw the training data, where a car would act on them.

Reads models/classifier and data/heldout/{dev,final,second}.csv, writes benchmarks/unseen/results.json. dev may be read
to find weaknesses; final and second are for figures alone: nothing is chosen by them.

    python -m benchmarks.unseen.run
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import describe
from intents.bulk.scoring import load_scorer
from intents.deciding import decide
from intents.duplicates import normalise
from intents.scoring import share_interval

CLASSIFIER_DIR = Path("models/classifier")
HELDOUT_DIR = Path("data/heldout")
TRAINING_DATA = Path("data/raw/driver_intents.csv")
RESULTS_PATH = Path(__file__).with_name("results.json")
NOTHING = "no_intent"
HARMLESS = ("chitchat", "other_request")  # all other kinds of no_intent are near misses


def share(chosen: Sequence[bool]) -> dict[str, object]:
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


def main() -> None:
    """Answer the files, write the shares."""
    scorer = load_scorer(CLASSIFIER_DIR)
    known = {normalise(row["text"]) for row in read(TRAINING_DATA)}
    results: dict[str, object] = describe()
    for name in ("dev", "final", "second"):
        rows = read(HELDOUT_DIR / f"{name}.csv")
        fresh = [row for row in rows if normalise(row["text"]) not in known]
        probabilities = scorer.probabilities([row["text"] for row in fresh])
        answers, _ = decide(probabilities, scorer.intents, scorer.calibration)
        pairs = list(zip(fresh, answers, strict=True))
        results[name] = {
            "left_out_as_known": len(rows) - len(fresh),
            "accuracy": share([row["intent"] == answer for row, answer in pairs]),
            "commands_obeyed": share([row["intent"] == answer for row, answer in pairs if row["intent"] != NOTHING]),
            "near_misses_acted_on": share(
                [answer != NOTHING for row, answer in pairs if row["intent"] == NOTHING and row["kind"] not in HARMLESS]
            ),
        }
    RESULTS_PATH.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
