"""TF-IDF (word 1-2, character 2-5) with logistic regression, on the very splits of the pipeline.

A data set on which this does well needs no transformer. Reads data/prepared, writes benchmarks/baseline/results.json.

    python -m benchmarks.baseline.run
"""

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from benchmarks.machine import describe
from intents.scoring import share_interval

PREPARED_DIR = Path("data/prepared")
PIPELINE_METRICS = Path("metrics/evaluate.json")
RESULTS_PATH = Path(__file__).with_name("results.json")
Split = tuple[list[str], list[str]]
REGULARISATIONS = (1.0, 3.0, 10.0, 30.0, 100.0)


def tfidf_regression(regularisation: float) -> Pipeline:
    """Return the untrained baseline; `regularisation` is scikit-learn's C."""
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    return make_pipeline(features, LogisticRegression(C=regularisation, max_iter=2000))


def read(split: str) -> Split:
    """Return the texts and intents of a split."""
    table = pq.read_table(PREPARED_DIR / f"{split}.parquet")
    return table.column("text").to_pylist(), table.column("intent").to_pylist()


def measure(classifier: ClassifierMixin, train: Split, test: Split) -> dict[str, object]:
    """Fit on train, score on test."""
    started = time.perf_counter()
    classifier.fit(*train)
    seconds = time.perf_counter() - started
    predicted = classifier.predict(test[0])
    right = sum(a == b for a, b in zip(predicted, test[1], strict=True))
    low, high = share_interval(right, len(test[1]), 0.95)
    return {
        "accuracy": round(accuracy_score(test[1], predicted), 4),
        "accuracy_interval": [round(low, 4), round(high, 4)],
        "macro_f1": round(f1_score(test[1], predicted, average="macro"), 4),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Choose C on validation, then score on test once."""
    train, validation, test = read("train"), read("validation"), read("test")
    scores = {c: tfidf_regression(c).fit(*train).score(*validation) for c in REGULARISATIONS}
    best = max(scores, key=scores.get)
    results = {
        **describe(),
        "chosen_C": best,
        "majority": measure(DummyClassifier(), train, test),
        "tfidf_logistic_regression": measure(tfidf_regression(best), train, test),
        "pipeline": json.loads(PIPELINE_METRICS.read_text(encoding="utf-8"))["test"],
    }
    RESULTS_PATH.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
