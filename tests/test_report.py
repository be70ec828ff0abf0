"""The report page: how it shows which intents are taken for which."""

import re

import numpy as np

from intents import evaluating
from intents.answers import Answers
from intents.calibrations import Calibration
from intents.ladder import ladder_table
from intents.report import render_report
from intents.trust import trust_tables


def render(labels, predicted, intents):
    logits = np.eye(len(intents), dtype=np.float32)[predicted] * 4
    texts = [f"text {number}" for number in range(len(labels))]
    calibration = Calibration(1.0, {}, intents[0], (intents[0],))
    answers = Answers(intents, texts, [""] * len(labels), np.array(labels), logits, calibration)
    tables = {
        "averages": evaluating.average_table(answers),
        "per_intent": evaluating.intent_table(answers),
        "per_kind": [],
        "ladder": ladder_table(answers, {"majority": [intents[0]] * len(labels)}, 0.95, 100, 0),
        "behaviour": [],
        "behaviour_pairs": [],
    }
    curves = [{"train_loss": 1.0, "log_loss": 0.5, "accuracy": 0.8, "macro_f1": 0.7}]
    metrics = evaluating.headline(answers, 0.95, 100, 0)
    return render_report(answers, metrics, tables, trust_tables(answers, 0.95), curves, [], "full", 0.95)


def section(page, heading):
    return page.partition(f"<h2>{heading}</h2>")[2].partition("<h2>")[0]


def test_the_rows_of_the_confusion_matrix_are_the_truth():
    page = render([0, 0, 1, 1], [0, 1, 1, 1], ["no_intent", "window"])
    matrix = section(page, "Confusion matrix").partition("</table>")[0]
    rows = [re.findall(r"<small>(\d+|&middot;)</small>", row) for row in matrix.split("<tr>")[2:]]
    assert rows == [["1", "1"], ["&middot;", "2"]]
    assert "<h2>Confusions</h2>" not in page


def test_hundreds_of_intents_are_a_list_of_what_is_confused_most_and_no_matrix():
    intents = [f"intent_{number:03}" for number in range(300)]
    labels = [label for label in range(300) for _ in range(3)]
    predicted = labels.copy()
    predicted[0:2] = [7, 7]  # two of the three texts of intent_000
    predicted[30:150:3] = [(label + 1) % 300 for label in labels[30:150:3]]  # one each of forty intents
    predicted[300:360:3] = [0] * 20  # and of twenty more
    page = render(labels, predicted, intents)
    shown = section(page, "Confusions")
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in shown.split("<tr>")[2:]]
    assert rows[0] == ["intent_000", "intent_007", "2", "3"]
    assert len(rows) == 50 and ["intent_010", "intent_011", "1", "3"] in rows
    assert "50\nmost frequent of 61 pairs" in shown
    assert "<h2>Confusion matrix</h2>" not in page and len(page) < 300_000


def test_hundreds_of_intents_without_a_mistake_say_so():
    intents = [f"intent_{number:03}" for number in range(100)]
    assert "every likeliest intent is the true one" in section(
        render(list(range(100)), list(range(100)), intents), "Confusions"
    )
