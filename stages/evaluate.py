"""Scores the classifier on the test split, the only stage that looks at its labels, and on behavioural pairs.

Reads models/{trained,calibration}, data/prepared/test.parquet, data/tokenized/test.parquet,
data/predictions/baselines.parquet, evaluate.behaviour_pairs, metrics/calibrate.json and metrics/plots/training.csv,
writes metrics/evaluate.json, metrics/report.html, metrics/tables, data/predictions/test.parquet and
metrics/plots/{confusion,per_intent,confidence,reliability_before,reliability_after,coverage_risk}.csv.

    python -m stages.evaluate
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from intents import behaviour, evaluating
from intents.answers import Answers
from intents.bulk.torch_scoring import TorchScorer
from intents.calibrations import read_calibration
from intents.cli import run
from intents.files import sha256_of, write_csv, write_json, write_text
from intents.ladder import ladder_table
from intents.params import OutOfScopeParams, Params, load_params, read_params
from intents.report import Subject, render_report
from intents.tables import NEVER_ANSWERED, NO_ACTION, intents_of, with_facts, write_table
from intents.trust import Table, trust_tables

TRAINED_DIR = Path("models/trained")
CALIBRATION_DIR = Path("models/calibration")
PREPARED_PATH = Path("data/prepared/test.parquet")
TOKENIZED_PATH = Path("data/tokenized/test.parquet")
BASELINES_PATH = Path("data/predictions/baselines.parquet")
NO_PAIRS = Path("data/none")
CALIBRATE_PATH = Path("metrics/calibrate.json")
CURVES_PATH = Path("metrics/plots/training.csv")
METRICS_PATH = Path("metrics/evaluate.json")
REPORT_PATH = Path("metrics/report.html")
TABLES_DIR = Path("metrics/tables")
PLOTS_DIR = Path("metrics/plots")
PREDICTIONS_PATH = Path("data/predictions/test.parquet")
ALSO_READS = (  # dvc.yaml lists them
    "prepare.out_of_scope_intent",
    "prepare.out_of_scope_use",
    "encoder.name",
    "prepare.source",
    "train.method",
    "card.title",
    "calibrate.max_false_action_rate",
)


class EvaluateParams(Params):
    """Section `evaluate` of params.yaml."""

    confidence_level: float = Field(gt=0, lt=1)
    bootstrap_samples: int = Field(ge=100)
    num_mistakes: int = Field(ge=0)
    behaviour_pairs: Path
    seed: int = Field(ge=0)


def read_settings() -> tuple[EvaluateParams, list[behaviour.Pair] | None]:
    """Return the settings, and the behavioural pairs that they name; None where there are to be none."""
    params = load_params("evaluate", EvaluateParams)
    return params, None if params.behaviour_pairs == NO_PAIRS else behaviour.read_pairs(params.behaviour_pairs)


def check_settings() -> None:
    """Raise ValueError where the settings of this stage or the pairs are wrong: `train` asks before it begins."""
    pairs = load_params("evaluate", EvaluateParams).behaviour_pairs
    tracked = any(Path(f"{path}.dvc").exists() for path in (pairs, *pairs.parents))
    if pairs.exists() or not tracked:  # else DVC fetches them later
        read_settings()


def answer_test_split() -> tuple[Answers, pa.Table]:
    """Return the classifier's answers to the test split, and the split's rows."""
    from intents.predicting import answer_split

    scope = load_params("prepare", OutOfScopeParams)
    untrained = [scope.out_of_scope_intent] if scope.out_of_scope_use == "threshold" else []
    intents = intents_of(TOKENIZED_PATH)
    rows = pq.read_table(PREPARED_PATH)
    texts, kinds = (rows.column(name).to_pylist() for name in ("text", "kind"))
    labels_n, logits_nc = answer_split(TRAINED_DIR, TOKENIZED_PATH)
    calibration = read_calibration(CALIBRATION_DIR, intents, required=True)
    return Answers(intents, texts, kinds, labels_n, logits_nc, calibration, [name for name in untrained if name]), rows


def write_predictions(answers: Answers, rows: pa.Table) -> None:
    """Write one row per test example: the example, the answer and the logits."""
    logits = pa.array(list(answers.logits_nc), type=pa.list_(pa.float32()))
    columns = {
        **{name: rows.column(name) for name in ("row", "text", "intent", "kind")},
        "predicted": [answers.names[index] for index in answers.likeliest.predicted_n],
        "answer": [answers.names[index] for index in answers.predicted_n],
        "confidence": pa.array(answers.confidence_n, type=pa.float32()),
        "logits": logits,
    }
    schema = pa.table(columns).schema
    facts = {"intents": list(answers.intents), NO_ACTION: list(answers.calibration.no_action)}
    if answers.never:
        facts[NEVER_ANSWERED] = answers.never
    write_table(PREDICTIONS_PATH, columns, with_facts(schema, **facts))


def write_plots(answers: Answers, per_intent: Table, trust: dict[str, Table]) -> None:
    """Write what `dvc plots` shows."""
    tables = {
        "confusion": evaluating.confusion_table(answers.likeliest),
        "per_intent": per_intent,
        "confidence": evaluating.confidence_table(answers.likeliest),
        "reliability_before": trust["reliability_before"],
        "reliability_after": trust["reliability_after"],
        "coverage_risk": trust["coverage_risk"],
    }
    for name, table in tables.items():
        write_csv(PLOTS_DIR / f"{name}.csv", table)


def ask_pairs(
    pairs: Sequence[behaviour.Pair] | None, never: Sequence[str], confidence_level: float
) -> tuple[Table, dict[str, Any]]:
    """Return the classifier's answers to the behavioural pairs, and their headline; nothing where there are none."""
    if pairs is None:
        return [], {}
    asked = behaviour.ask(TorchScorer(TRAINED_DIR, calibration_dir=CALIBRATION_DIR), pairs, never)
    return asked, behaviour.headline(asked, len(pairs), confidence_level)


def main() -> None:
    """Run the stage."""
    params, pairs = read_settings()
    answers, rows = answer_test_split()
    asked, asked_headline = ask_pairs(pairs, answers.never, params.confidence_level)
    sampling = (params.confidence_level, params.bootstrap_samples, params.seed)
    ladder = ladder_table(answers, pq.read_table(BASELINES_PATH).to_pydict(), *sampling)
    metrics = evaluating.headline(answers, *sampling)
    metrics["test"] |= asked_headline
    metrics["ladder"] = {row["rung"]: row["accuracy"] for row in ladder}
    trust = trust_tables(answers, params.confidence_level)
    likeliest = answers.likeliest
    tables = {
        "averages": evaluating.average_table(likeliest),
        "per_intent": evaluating.intent_table(likeliest),
        "per_kind": evaluating.kind_table(likeliest, params.confidence_level),
        "calibration": trust["before_after"],
        "false_actions": trust["false_actions"],
        "actions": trust["actions"],
        "ladder": ladder,
        "behaviour": behaviour.aspect_table(asked, params.confidence_level),
        "behaviour_pairs": asked,
    }
    curves = list(csv.DictReader(io.StringIO(CURVES_PATH.read_text(encoding="utf-8"))))
    lists = evaluating.wrong_texts(answers, params.num_mistakes)
    settings, budget = read_params(), json.loads(CALIBRATE_PATH.read_text(encoding="utf-8"))["budget"][0]
    # The limit says nothing of other texts that ask for nothing: out-of-scope ones that are but a class.
    limited = set(budget["intents"]) == set(answers.calibration.no_action)
    subject = Subject(
        title=settings["card"]["title"],
        encoder=settings["encoder"]["name"],
        method=settings["train"]["method"],
        source=Path(settings["prepare"]["source"]).name,
        weights_sha256=sha256_of(TRAINED_DIR / "model.safetensors"),
        max_false_action_rate=settings["calibrate"]["max_false_action_rate"] if limited else None,
        num_validation=budget["texts_that_ask_for_nothing"],
        num_allowed=budget["false_actions_allowed"] if limited else None,
    )
    write_predictions(answers, rows)
    write_plots(answers, tables["per_intent"], trust)
    for name, table in tables.items():
        write_csv(TABLES_DIR / f"{name}.csv", table)
    page = render_report(subject, answers, metrics, tables, trust, curves, lists, params.confidence_level)
    write_text(REPORT_PATH, page)
    write_json(METRICS_PATH, metrics)
    print(summary(metrics["test"]))
    for caution in evaluating.cautions(ladder, tables["per_intent"]):
        print(f"warning: {caution}")
    print(f"{METRICS_PATH} has the numbers, {REPORT_PATH} the whole picture")


def summary(test: dict[str, Any]) -> str:
    """Return the headline in a line or two."""
    low, high = test["accuracy_interval"]
    line = (
        f"test accuracy {test['accuracy']} ({low} to {high}), macro-F1 {test['macro_f1']}, log-loss {test['log_loss']}"
    )
    if "false_action_rate" not in test:
        return line
    low, high = test["false_action_interval"]
    return (
        f"{line}\nobeyed {test['commands_obeyed']} of the commands, acted on {test['false_action_rate']}"
        f" ({low} to {high}) of the texts that ask for nothing"
    )


if __name__ == "__main__":
    run(main)
