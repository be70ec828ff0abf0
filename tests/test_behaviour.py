"""The behavioural suite: pairs are read, asked, counted and shown; and the trained classifier, where there is one."""

import csv
import json

import numpy as np
import pytest

from intents import behaviour, evaluating
from intents.answers import Answers
from intents.behaviour import COLUMNS, Pair
from intents.calibrations import Calibration
from intents.ladder import ladder_table
from intents.report import Subject, render_report
from intents.scoring import share_interval
from intents.trust import trust_tables
from tests.conftest import REPOSITORY

INTENTS = ["no_intent", "window"]
PAIRS = [
    Pair("1", "open_close", ("lower it", "raise it"), ("window", "no_intent")),
    Pair("2", "open_close", ("lower mine", "raise mine"), ("window", "no_intent")),
    Pair("3", "case", ("lower one", "LOWER ONE"), ("window", "window")),
    Pair("4", "case", ("raise two", "RAISE TWO"), ("no_intent", "no_intent")),
    Pair("5", "case", ("maybe lower", "maybe LOWER"), ("window", "window")),
    Pair("6", "device", ("beams on", "fog lights on"), ("beams", "no_intent")),
]


class FakeScorer:
    """Hears "lower" in lower case alone, and is not sure where it hears "maybe"."""

    intents = INTENTS
    calibration = Calibration(1.0, {"window": 0.7}, "no_intent", ("no_intent",))

    def probabilities(self, texts):
        window = [0.0 if "lower" not in text else 0.6 if "maybe" in text else 0.9 for text in texts]
        return np.array([[1 - p, p] for p in window], dtype=np.float32).reshape(-1, 2)


@pytest.fixture
def asked():
    return behaviour.ask(FakeScorer(), PAIRS)


def write_pairs(path, rows, header=COLUMNS):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_a_pair_passes_if_both_answers_are_right(asked):
    found = {row["pair"]: (row["passed"], row["consistent"]) for row in asked}
    assert found == {
        "1": (True, True),
        "2": (True, True),
        "3": (False, False),  # right and wrong
        "4": (True, True),
        "5": (False, True),  # one is not heard, the other below the threshold: both no_intent
    }


def test_what_only_a_threshold_stopped_is_told_apart():
    [unsure] = behaviour.ask(FakeScorer(), [Pair("7", "x", ("maybe lower", "raise"), ("window", "no_intent"))])
    assert (unsure["answer_a"], unsure["passed"], unsure["passed_before_thresholds"]) == ("no_intent", False, True)


def test_pairs_about_intents_that_the_classifier_lacks_are_left_out_and_counted(asked):
    assert [row["pair"] for row in asked] == ["1", "2", "3", "4", "5"]
    found = behaviour.headline(asked, len(PAIRS), 0.95)
    passed = {"open_close": 1.0, "case": 0.3333}
    assert found["behaviour_pairs"] == [{"asked": 5, "left_out": 1, "passed": passed}]
    assert found["behaviour_passed"] == 0.6
    assert found["behaviour_passed_interval"] == pytest.approx(share_interval(3, 5, 0.95), abs=1e-4)


def test_nothing_to_ask_is_no_share():
    asked = behaviour.ask(FakeScorer(), PAIRS[-1:])
    assert asked == [] == behaviour.aspect_table(asked, 0.95)
    assert behaviour.headline(asked, 1, 0.95) == {"behaviour_pairs": [{"asked": 0, "left_out": 1, "passed": {}}]}


def test_aspects_have_exact_intervals_and_those_that_matter_come_first(asked):
    table = behaviour.aspect_table(list(reversed(asked)), 0.95)
    assert [(row["aspect"], row["must"], row["pairs"]) for row in table] == [
        ("open_close", "differ", 2),
        ("case", "agree", 3),
    ]
    case = table[1]
    assert (case["passed"], case["consistent"]) == (0.3333, 0.6667)
    assert (case["passed_low"], case["passed_high"]) == pytest.approx(share_interval(1, 3, 0.95), abs=1e-4)
    assert (case["consistent_low"], case["consistent_high"]) == pytest.approx(share_interval(2, 3, 0.95), abs=1e-4)


def test_pairs_are_read_as_written(tmp_path):
    row = ["9", "typo", "open, please", "window", 'opne, "please"', "window "]
    assert behaviour.read_pairs(write_pairs(tmp_path / "pairs.csv", [row])) == [
        Pair("9", "typo", ("open, please", 'opne, "please"'), ("window", "window"))
    ]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["text", "intent"], [["a", "b"]], "must have the columns pair, aspect, .*; it has: text, intent"),
        (COLUMNS, [["1", "x", "a", "i", "b", "i"], ["2", "x", "", "i", "b", "i"]], r"lacks values in line\(s\) 3"),
        (COLUMNS, [["1", "x", "a", " b", "i", "c", "i"]], r"more fields than its header in line\(s\) 2; quote texts"),
        (COLUMNS, [["1", "x", "a", "i"]], r"lacks values in line\(s\) 2"),
        (COLUMNS, [["1", "x", "a", " ", "b", "i"]], r"lacks values in line\(s\) 2"),
        ([*COLUMNS, "text_b"], [["1", "x", "a", "i", "b", "i", "c"]], "must have the columns pair, .*, text_b$"),
        ([], [], "must have the columns pair, aspect, .*; it has: none"),
        (COLUMNS, [["1", "x", "a", "i", "b", "i"], ["2", "x", "a", "i", "b", "j"]], "x changes the intent in some"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path, header, rows, message):
    with pytest.raises(ValueError, match=f"^evaluate.behaviour_pairs: .*{message}"):
        behaviour.read_pairs(write_pairs(tmp_path / "pairs.csv", rows, header))


def test_an_empty_line_counts(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(",".join(COLUMNS) + "\n1,x,a,i,b,i\n\n2,x,,i,b,i\n")
    with pytest.raises(ValueError, match=r"lacks values in line\(s\) 4"):
        behaviour.read_pairs(path)


@pytest.mark.parametrize("rest", ["2,x,a,i,b,i\n", "long " * 40_000])
def test_a_quote_left_open_loses_no_pair_in_silence(tmp_path, rest):
    path = tmp_path / "pairs.csv"
    path.write_text(",".join(COLUMNS) + '\n1,x,a,i,b,"i\n' + rest)
    with pytest.raises(ValueError, match=r"^evaluate.behaviour_pairs: .*, line \d: not valid CSV .*quote left open\?"):
        behaviour.read_pairs(path)


def test_pairs_about_an_intent_that_is_never_an_answer_are_left_out():
    assert [row["pair"] for row in behaviour.ask(FakeScorer(), PAIRS, ["no_intent"])] == ["3", "5"]


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(",".join(COLUMNS).encode() + b"\n1,side,\xf6ffne,down,shut,up\n")
    with pytest.raises(ValueError, match="evaluate.behaviour_pairs: .*pairs.csv is not UTF-8 .* save it as UTF-8"):
        behaviour.read_pairs(path)


def render(asked, num_pairs, method, level=0.95):
    labels = np.array([0, 0, 1, 1])
    logits = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]], dtype=np.float32))
    answers = Answers(INTENTS, ["a", "b", "c", "d"], [""] * 4, labels, logits, FakeScorer.calibration)
    metrics = evaluating.headline(answers, 0.95, 100, 0)
    metrics["test"] |= behaviour.headline(asked, num_pairs, 0.95)
    tables = {
        "averages": evaluating.average_table(answers),
        "per_intent": evaluating.intent_table(answers),
        "per_kind": [],
        "ladder": ladder_table(answers, {"majority": ["no_intent"] * 4}, 0.95, 100, 0),
        "behaviour": behaviour.aspect_table(asked, 0.95),
        "behaviour_pairs": asked,
    }
    curves = [{"train_loss": 1.0, "log_loss": 0.5, "accuracy": 0.8, "macro_f1": 0.7}]
    lists = evaluating.wrong_texts(answers, 50)
    subject = Subject("Title", "encoder", method, "data.csv", "0" * 64, 0.005, 500, 4)
    return render_report(subject, answers, metrics, tables, trust_tables(answers, 0.95), curves, lists, level)


def test_the_report_shows_the_ladder_and_lists_the_pairs_that_failed_escaped(asked):
    failing = Pair("8", "case", ("lower <b>it</b>", "LOWER <b>IT</b>"), ("window", "window"))
    asked += behaviour.ask(FakeScorer(), [failing])
    page = render(asked, 7, "lora")
    assert "always the most frequent intent" in page and "fine-tuned (lora): this classifier" in page
    assert "the same, silent where it is not sure enough" in page
    assert "6 pairs of texts" in page and "(1 more ask for intents" in page
    assert "The 3 pairs that did not pass" in page
    assert "lower &lt;b&gt;it&lt;/b&gt;" in page and "<b>it</b>" not in page
    assert "raise mine" not in page  # passed


def test_a_report_without_pairs_has_no_section_about_them_and_names_its_intervals_level():
    page = render([], 0, "full", 0.9)
    assert "90 % interval" in page and "95 %" not in page
    assert "Behaviour" not in page and "fine-tuned (full): this classifier" in page


def test_the_committed_classifier_passes_most_pairs_of_each_aspect():
    [counts] = json.loads((REPOSITORY / "metrics/evaluate.json").read_text())["test"]["behaviour_pairs"]
    if not counts["asked"]:
        pytest.skip("metrics/evaluate.json is of other data: its classifier knows none of the intents of the pairs")
    assert counts["asked"] >= 300 and len(counts["passed"]) >= 10
    assert {aspect: share for aspect, share in counts["passed"].items() if share < 0.75} == {}


TRAINED_DIR = REPOSITORY / "models/classifier"


@pytest.mark.filterwarnings("default")
def test_the_trained_classifier_sees_what_matters_more_often_than_not():
    if not (TRAINED_DIR / "config.json").is_file():
        pytest.skip("models/classifier is not there: `dvc repro` or `dvc pull` brings the classifier that this asks")
    from intents.bulk.torch_scoring import TorchScorer

    asked = behaviour.ask(TorchScorer(TRAINED_DIR), behaviour.read_pairs(REPOSITORY / "data/behaviour/pairs.csv"))
    if not asked:
        pytest.skip("models/classifier was trained on other data: it knows none of the intents of the pairs")
    for must in ("differ", "agree"):
        rows = [row for row in asked if row["must"] == must]
        assert sum(row["passed_before_thresholds"] for row in rows) > len(rows) / 2, must


def test_a_classifier_of_other_intents_is_asked_nothing_though_it_has_no_intent_too():
    class Tickets(FakeScorer):
        intents = ["no_intent", "refund"]
        calibration = Calibration(1.0, {"refund": 0.7}, "no_intent", ("no_intent",))

    assert behaviour.ask(Tickets(), PAIRS) == []
