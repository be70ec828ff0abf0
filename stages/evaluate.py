"""Scores the classifier on the test split, the only stage that opens it.

Reads models/classifier, data/prepared/test.parquet, data/tokenized/test.parquet and metrics/plots/training.csv, writes
metrics/evaluate.json, metrics/report.html, metrics/tables, metrics/plots/{confusion,per_intent,confidence}.csv and
data/predictions/test.parquet.

    python -m stages.evaluate
"""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from intents import evaluating
from intents.cli import run
from intents.evaluating import Answers, Table
from intents.files import write_json, write_text
from intents.params import Params, load_params
from intents.report import render_report
from intents.tables import intents_of, with_facts, write_table

CLASSIFIER_DIR = Path("models/classifier")
PREPARED_PATH = Path("data/prepared/test.parquet")
TOKENIZED_PATH = Path("data/tokenized/test.parquet")
CURVES_PATH = Path("metrics/plots/training.csv")
METRICS_PATH = Path("metrics/evaluate.json")
REPORT_PATH = Path("metrics/report.html")
TABLES_DIR = Path("metrics/tables")
PLOTS_DIR = Path("metrics/plots")
PREDICTIONS_PATH = Path("data/predictions/test.parquet")
BATCH_SIZE = 64


class EvaluateParams(Params):
    """Section `evaluate` of params.yaml."""

    confidence_level: float = Field(gt=0, lt=1)
    bootstrap_samples: int = Field(ge=100)
    num_mistakes: int = Field(ge=0)
    seed: int = Field(ge=0)


def answer_test_split() -> tuple[Answers, pa.Table]:
    """Return the classifier's answers to the test split, and the split's rows."""
    import torch
    import transformers

    from intents.batching import TokenizedTexts
    from intents.classifier import load_classifier
    from intents.predicting import predict_logits

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = load_classifier(CLASSIFIER_DIR).to("cuda" if torch.cuda.is_available() else "cpu")
    rows = pq.read_table(PREPARED_PATH)
    tokens = TokenizedTexts(TOKENIZED_PATH)
    pad_token_id = transformers.AutoTokenizer.from_pretrained(CLASSIFIER_DIR).pad_token_id
    answers = Answers(
        intents=intents_of(TOKENIZED_PATH),
        texts=rows.column("text").to_pylist(),
        kinds=rows.column("kind").to_pylist(),
        labels_n=tokens.labels,
        logits_nc=predict_logits(model, tokens, pad_token_id, BATCH_SIZE),
    )
    return answers, rows


def write_predictions(answers: Answers, rows: pa.Table) -> None:
    """Write one row per test example: the example, the answer and the logits."""
    logits = pa.array(list(answers.logits_nc), type=pa.list_(pa.float32()))
    columns = {
        **{name: rows.column(name) for name in ("row", "text", "intent", "kind")},
        "predicted": [answers.intents[label] for label in answers.predicted_n],
        "confidence": pa.array(answers.confidence_n, type=pa.float32()),
        "logits": logits,
    }
    schema = pa.schema(
        [(name, column.type if hasattr(column, "type") else pa.string()) for name, column in columns.items()]
    )
    write_table(PREDICTIONS_PATH, columns, with_facts(schema, intents=list(answers.intents)))


def main() -> None:
    """Run the stage."""
    params = load_params("evaluate", EvaluateParams)
    answers, rows = answer_test_split()
    metrics = evaluating.headline(answers, params.confidence_level, params.bootstrap_samples, params.seed)
    per_intent = evaluating.intent_table(answers)
    per_kind = evaluating.kind_table(answers, params.confidence_level)
    averages = evaluating.average_table(answers)
    mistakes = evaluating.mistake_table(answers, params.num_mistakes)
    curves = list(csv.DictReader(io.StringIO(CURVES_PATH.read_text(encoding="utf-8"))))

    write_predictions(answers, rows)
    write_text(PLOTS_DIR / "confusion.csv", _to_csv(evaluating.confusion_table(answers)))
    write_text(PLOTS_DIR / "per_intent.csv", _to_csv(per_intent))
    write_text(PLOTS_DIR / "confidence.csv", _to_csv(evaluating.confidence_table(answers)))
    for name, table in (("averages", averages), ("per_intent", per_intent), ("per_kind", per_kind)):
        write_text(TABLES_DIR / f"{name}.csv", _to_csv(table))
    report = render_report(
        answers.intents,
        metrics,
        evaluating.confusion_matrix(answers),
        averages,
        per_intent,
        per_kind,
        curves,
        mistakes,
        num_mistakes=int((answers.labels_n != answers.predicted_n).sum()),
    )
    write_text(REPORT_PATH, report)
    write_json(METRICS_PATH, metrics)
    test = metrics["test"]
    low, high = test["accuracy_interval"]
    print(
        f"test accuracy {test['accuracy']} ({low} to {high}), macro-F1 {test['macro_f1']}, log-loss {test['log_loss']}"
    )
    print(f"{METRICS_PATH} has the numbers, {REPORT_PATH} the whole picture")


def _to_csv(table: Table) -> str:
    text = io.StringIO()
    if table:
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return text.getvalue()


if __name__ == "__main__":
    run(main)
