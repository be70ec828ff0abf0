"""The report page: how it shows which intents are taken for which."""

import re

import numpy as np

from intents import evaluating
from intents.answers import Answers
from intents.calibrations import Calibration
from intents.ladder import ladder_table
from intents.report import Subject, render_report
from intents.trust import trust_tables

POINT = {"train_loss": 1.0, "log_loss": 0.5, "accuracy": 0.8, "macro_f1": 0.7}


def render(
    labels, predicted, intents, thresholds=None, baseline=None, limit=0.005, reject=0, budget=(500, 4), curves=()
):
    logits = np.eye(len(intents), dtype=np.float32)[predicted] * 4
    texts = [f"text {number}" for number in range(len(labels))]
    rejected = () if reject is None else (intents[reject],)
    calibration = Calibration(1.0, thresholds or {}, *(rejected or (None,)), rejected)
    answers = Answers(intents, texts, [""] * len(labels), np.array(labels), logits, calibration)
    tables = {
        "averages": evaluating.average_table(answers),
        "per_intent": evaluating.intent_table(answers),
        "per_kind": [],
        "ladder": ladder_table(answers, {"majority": baseline or [intents[0]] * len(labels)}, 0.95, 100, 0),
        "behaviour": [],
        "behaviour_pairs": [],
    }
    curves = curves or [POINT]
    metrics = evaluating.headline(answers, 0.95, 100, 0)
    lists = evaluating.wrong_texts(answers, 50)
    trust = trust_tables(answers, 0.95)
    subject = Subject("Lights & wipers", "bert-base", "full", "lights.csv", "0123456789abcdef" * 4, limit, *budget)
    return render_report(subject, answers, metrics, tables, trust, curves, lists, 0.95)


def section(page, heading):
    return page.partition(f"<h2>{heading}</h2>")[2].partition("<h2>")[0]


def test_the_page_says_of_what_it_is():
    page = " ".join(render([0, 1], [0, 1], ["no_intent", "window"]).split())
    assert "<h1>Lights &amp; wipers: how well the classifier answers</h1>" in page
    assert "<p>bert-base, fine-tuned (full) on lights.csv; SHA-256 of the weights" in page
    assert ">0123456789ab</code>" in page and "0123456789abcdef" * 4 in page


def test_the_rows_of_the_confusion_matrix_are_the_truth():
    page = render([0, 0, 1, 1], [0, 1, 1, 1], ["no_intent", "window"])
    matrix = section(page, "Confusion matrix").partition("</table>")[0]
    rows = [re.findall(r"<small>(\d+|&middot;)</small>", row) for row in matrix.split("<tr>")[2:]]
    assert rows == [["1", "1"], ["&middot;", "2"]]
    assert "<h2>Confusions</h2>" not in page


def test_a_matrix_of_many_intents_has_the_frequent_confusions_beneath_it():
    intents = [f"intent_{number:02}" for number in range(20)]
    page = render(list(range(20)), [*range(19), 3], intents)
    assert "<h2>Confusion matrix</h2>" in page
    assert re.findall(r"<td>(.*?)</td>", section(page, "Confusions")) == ["intent_19", "intent_03", "1", "1"]


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
    assert "50 most frequent of 61 pairs" in " ".join(shown.split())
    assert "<h2>Confusion matrix</h2>" not in page and len(page) < 300_000


def test_hundreds_of_intents_without_a_mistake_say_so():
    intents = [f"intent_{number:03}" for number in range(100)]
    assert "every likeliest intent is the true one" in section(
        render(list(range(100)), list(range(100)), intents), "Confusions"
    )


def test_a_classifier_that_learnt_nothing_is_called_so_at_the_top():
    page = render([0, 0, 0, 1, 2], [0, 0, 0, 0, 0], ["no_intent", "window", "wipers"])
    top = page.partition("<h2>")[0]
    assert "Fine-tuning did not pay: an accuracy of 0.600 is no more than that of majority (0.600)." in top
    assert "Never rightly answered: window, wipers." in top
    assert 'class="caution"' not in render([0, 0, 1, 1], [0, 0, 1, 1], ["no_intent", "window"])


def test_what_would_be_acted_on_wrongly_and_what_is_not_obeyed_is_listed():
    labels, predicted = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0]
    page = render(labels, predicted, ["no_intent", "window"], {"window": 0.5}, limit=0.05)
    trusted = " ".join(section(page, "Can it be trusted?").split())
    assert "Texts that ask for nothing and would be acted on: 1<" in trusted and ">text 2<" in trusted
    assert "Commands that are not obeyed: 1<" in trusted and ">text 5<" in trusted
    assert ">text 0<" not in page and ">text 3<" not in page
    assert "at most 5.0 % through" in trusted and "may be chance" in trusted
    assert "<span>Accuracy, thresholds aside</span>" in page and "true \\ likeliest" in page


def test_more_false_actions_than_chance_explains_are_called_so():
    labels, predicted = [0] * 60 + [1] * 10, [1] * 30 + [0] * 30 + [1] * 10
    page = render(labels, predicted, ["no_intent", "window"], {"window": 0.5}, limit=0.01)
    assert "is hardly chance" in page
    # The threshold that 20 texts chose may by chance lie far too low.
    page = render(labels, predicted, ["no_intent", "window"], {"window": 0.5}, limit=0.4, budget=(20, 7))
    assert "may be chance, for the 20 of validation that chose the thresholds are few, too." in " ".join(page.split())
    fine = render([0] * 60 + [1] * 10, [0] * 60 + [1] * 10, ["no_intent", "window"], {"window": 0.5})
    assert "These texts show no more." in fine


def test_where_no_intent_asks_for_nothing_the_page_says_that_the_limit_does_nothing():
    page = render([0, 1, 1], [0, 1, 0], ["other", "window"], reject=None)
    assert "calibrate.max_false_action_rate does nothing" in page
    assert "Commands that are not obeyed" not in page


def test_without_a_limit_for_these_texts_no_limit_is_claimed():
    page = render([0, 0, 1], [0, 1, 1], ["no_intent", "window"], {"window": 0.5}, limit=None, budget=(0, None))
    assert "The thresholds were chosen on validation" not in page


def test_a_threshold_that_can_be_reached_is_a_number_however_high():
    page = render([0, 1, 2], [0, 1, 2], ["no_intent", "window", "wipers"], {"window": 0.99996, "wipers": 1.01})
    assert "<td>99.996 %</td>" in page
    assert page.count("more than any") == 1


def test_a_training_that_diverged_after_its_best_epoch_has_curves():
    diverged = {**POINT, "train_loss": float("nan"), "log_loss": float("inf")}
    page = render([0, 1], [0, 1], ["no_intent", "window"], curves=[POINT, diverged])
    lines = re.findall(r'points="([^"]*)"', page)
    assert lines and not any("nan" in line or "inf" in line for line in lines)
