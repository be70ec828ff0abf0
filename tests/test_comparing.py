"""Tests of intents.comparing and of what people see of a comparison, on made-up answers."""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from intents.comparing import compare
from intents.comparison_output import print_comparison, to_html, to_json, to_markdown
from intents.comparison_tables import action_table, headline_table, verdict
from intents.grouping import Actions, Result, rows_differ
from intents.scoring import macro_f1_interval, share_interval
from intents.significance import holm, mcnemar_p

INTENTS = ["close", "none", "open"]
NUM_ROWS = 120


def make_result(name: str, wrong: list[int], **settings: object) -> Result:
    labels = np.arange(NUM_ROWS) % 3
    predicted = labels.copy()
    predicted[wrong] = (labels[wrong] + 1) % 3
    share = 1 - len(wrong) / NUM_ROWS
    return Result(
        name=name,
        settings={
            "train.rate": 0.1,
            "train.seed": 0,
            "evaluate.confidence_level": 0.95,
            **{f"train.{key}": value for key, value in settings.items()},
        },
        sources={"stages/train.py": "aaaaaaaaaa"},
        metrics={
            "accuracy": share,
            "accuracy_interval": [share - 0.05, share + 0.05],
            "macro_f1": float(f1_score(labels, predicted, average="macro")),
            "log_loss": 1 - share,
        },
        intents=INTENTS,
        texts=[f"text {i}" for i in range(NUM_ROWS)],
        kinds=[""] * NUM_ROWS,
        labels_n=labels,
        predicted_n=predicted,
        confidence_n=np.linspace(0.4, 0.9, NUM_ROWS).astype(np.float32),
    )


def without_seeds(notes: list[str]) -> list[str]:
    return [note for note in notes if not note.startswith("one seed each: ")]


BASE = make_result("base", wrong=list(range(20)))
BETTER = make_result("better", wrong=[0, 1, 50], rate=0.2)


def test_a_pair_has_mcnemar_for_accuracy_and_the_bootstrap_for_macro_f1():
    (pair,) = compare([BASE, BETTER], 0.95, 2000).pairs
    assert pair.accuracy.p == mcnemar_p(BASE.right_n, BETTER.right_n)
    assert pair.accuracy.method == "exact McNemar"
    assert pair.accuracy.difference.value == pytest.approx(17 / 120)
    assert pair.accuracy.difference.low < 17 / 120 < pair.accuracy.difference.high
    assert pair.macro_f1.method == "paired bootstrap"
    assert pair.macro_f1.p < 0.01
    assert pair.accuracy.p_holm == pair.accuracy.p


def test_all_pairs_are_tested_and_adjusted_together():
    middle = make_result("middle", wrong=list(range(10)), rate=0.3)
    pairs = compare([BASE, middle, BETTER], 0.95, 2000).pairs
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("base", "better"),
        ("base", "middle"),
        ("better", "middle"),
    ]
    for metric in ("accuracy", "macro_f1"):
        tests = [getattr(pair, metric) for pair in pairs]
        assert [test.p_holm for test in tests] == pytest.approx(holm([test.p for test in tests]))


def test_results_that_differ_in_seeds_alone_are_one_group():
    seeds = [BASE, make_result("s1", list(range(16)), seed=1), make_result("s2", list(range(24)), seed=2)]
    comparison = compare([*seeds, BETTER], 0.95, 2000)
    group, other = comparison.groups
    assert (group.name, other.name) == ("base (3 seeds)", "better")
    accuracies = [1 - n / NUM_ROWS for n in (20, 16, 24)]
    assert group.metrics["accuracy"].value == pytest.approx(np.mean(accuracies))
    assert group.deviation["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert group.metrics["accuracy"].high - np.mean(accuracies) == pytest.approx(
        4.302653 * group.deviation["accuracy"] / 3**0.5
    )
    (pair,) = comparison.pairs
    method = "paired bootstrap over rows and seeds (a single run's seed taken to matter as the group's do)"
    assert pair.accuracy.method == pair.macro_f1.method == method
    others = [make_result(f"o{i}", [0, 1, 50 + i], rate=0.2, seed=i) for i in range(2)]
    (pair,) = compare([*seeds, *others], 0.95, 2000).pairs
    assert pair.accuracy.method == pair.macro_f1.method == "paired bootstrap over rows and seeds"


@pytest.mark.parametrize("single_first", [True, False])
def test_a_single_run_within_the_spread_of_the_other_seeds_could_be_luck(single_first):
    spread = [make_result(f"s{i}", list(range(n)), rate=0.2, seed=i) for i, n in enumerate([30, 40, 50])]
    single = make_result("single", list(range(25)))
    (pair,) = compare([single, *spread] if single_first else [*spread, single], 0.95, 2000).pairs
    for test in (pair.accuracy, pair.macro_f1):
        assert test.p > 0.05
        assert test.difference.low < 0 < test.difference.high


def test_intervals_of_a_single_run_have_the_level_of_the_comparison():
    labels = BASE.labels_n, BASE.predicted_n, len(INTENTS)
    for level, settings in ((0.95, {}), (0.5, {}), (0.999, {"bootstrap_samples": 500, "seed": 3})):
        made = replace(BASE, settings=BASE.settings | {f"evaluate.{key}": value for key, value in settings.items()})
        comparison = compare([made, BETTER], level, 500)
        found = comparison.groups[0].metrics
        expected = BASE.metrics["accuracy_interval"] if level == 0.95 else share_interval(100, NUM_ROWS, level)
        assert [found["accuracy"].low, found["accuracy"].high] == pytest.approx(expected)
        expected = macro_f1_interval(*labels, level, settings.get("bootstrap_samples", 2000), settings.get("seed", 0))
        assert (found["macro_f1"].low, found["macro_f1"].high) == expected
        assert f"In brackets the {100 * level:g} % interval" in to_markdown(comparison)


def test_the_same_seed_again_is_no_other_seed_and_shares_stay_between_0_and_1():
    again = make_result("elsewhere", list(range(60)))
    comparison = compare([BASE, again], 0.95, 500)
    assert [group.name for group in comparison.groups] == ["base", "elsewhere"]
    apart = make_result("other-seed", list(range(110)), seed=1)
    group, _ = compare([BASE, apart, BETTER], 0.95, 500).groups
    assert (group.metrics["accuracy"].low, group.metrics["accuracy"].high) == (0.0, 1.0)


def test_other_code_with_the_same_settings_is_no_other_seed():
    changed = replace(make_result("code", list(range(5)), seed=1), sources={"stages/train.py": "bbbbbbbbbb"})
    comparison = compare([BASE, changed], 0.95, 500)
    assert len(comparison.groups) == 2
    assert comparison.groups[1].changes == {"stages/train.py": ("aaaaaaa", "bbbbbbb")}


def test_the_same_result_under_two_names_counts_once():
    comparison = compare([BASE, replace(BASE, name="copy"), BETTER], 0.95, 500)
    assert [group.name for group in comparison.groups] == ["base", "better"]
    assert comparison.notes[0] == "copy is the same as base: same settings, same code and answers; counted once"


def test_a_seed_that_changes_no_answer_makes_no_group_of_seeds():
    twice = [
        replace(BASE, name=section, settings={**BASE.settings, f"{section}.seed": 1})
        for section in ("evaluate", "baselines")
    ]
    surer = replace(make_result("surer", list(range(20)), seed=1), confidence_n=np.full(NUM_ROWS, 0.9, np.float32))
    comparison = compare([BASE, *twice, BETTER], 0.95, 500)
    assert [group.name for group in comparison.groups] == ["base", "better"]
    assert without_seeds(comparison.notes) == [
        f"{section} is the same as base: same settings but for {section}.seed, same code and answers; counted once"
        for section in ("evaluate", "baselines")
    ]
    assert compare([BASE, surer, BETTER], 0.95, 500).groups[0].name == "base (2 seeds)"


def test_refuses_other_test_rows_and_says_which_setting_made_them():
    other = make_result("other", [])
    other = replace(other, texts=["new text", *other.texts[1:]], settings={**other.settings, "prepare.test_share": 0.3})
    message = (
        r"the test rows of 'base' and 'other' differ \(120 and 120 rows, 1 and 1 of them only there,"
        r" such as 'text 0'\).*give both the same prepare.test_share"
    )
    with pytest.raises(ValueError, match=message):
        compare([BASE, other], 0.95, 500)


def test_rows_that_count_by_the_reject_intent_alone_blame_it():
    fewer = {name: getattr(BASE, name)[1:] for name in ("texts", "kinds", "labels_n", "predicted_n", "confidence_n")}
    other = replace(BASE, name="other", settings=BASE.settings | {"calibrate.reject_intent": None}, **fewer)
    auto = replace(BASE, settings=BASE.settings | {"calibrate.reject_intent": "auto"})
    assert rows_differ(auto, other).endswith("; give both the same calibrate.reject_intent")


def test_refuses_a_row_whose_true_intent_was_relabelled():
    labels = BASE.labels_n.copy()
    labels[3] = 1
    assert "1 and 1 of them only there" in rows_differ(BASE, replace(BASE, name="other", labels_n=labels))


def test_refuses_other_intents():
    with pytest.raises(ValueError, match=r"the intents of 'base' and 'other' differ \(beams\)"):
        compare([BASE, replace(BASE, name="other", intents=[*INTENTS, "beams"])], 0.95, 500)


def test_an_abstention_is_a_wrong_answer_with_a_name_of_its_own():
    predicted = BASE.predicted_n.copy()
    predicted[30:40] = len(INTENTS)
    shy = replace(BASE, name="shy", predicted_n=predicted, settings={"calibrate.rate": 1})
    comparison = compare([BASE, shy], 0.95, 200)
    assert comparison.pairs[0].accuracy.p == pytest.approx(2 * 0.5**10)
    assert [(flip.after, flip.broken) for flip in comparison.flips] == [("abstain", True)] * 10


def test_flips_are_listed_right_to_wrong_first_and_surest_first():
    worse_there = make_result("mixed", wrong=[10, 11, 70, 60], rate=0.2)
    flips = compare([BASE, worse_there], 0.95, 500).flips
    assert [flip.text for flip in flips[:2]] == ["text 70", "text 60"]
    assert [flip.broken for flip in flips] == [True, True] + [False] * 18
    assert (flips[0].before, flips[0].after, flips[0].intent) == ("none", "open", "none")
    assert [flip.confidence for flip in flips[2:]] == sorted((f.confidence for f in flips[2:]), reverse=True)


def test_flips_of_several_groups_are_listed_together_surest_first():
    others = [make_result("one", wrong=[60, 70], rate=0.2), make_result("two", wrong=[60, 80, 90], rate=0.3)]
    broken = [flip for flip in compare([BASE, *others], 0.95, 500).flips if flip.broken]
    assert {flip.group for flip in broken} == {"one", "two"}
    assert [flip.confidence for flip in broken] == sorted((flip.confidence for flip in broken), reverse=True)


def test_a_flip_between_groups_of_seeds_is_what_most_seeds_say():
    seeds = [make_result(f"s{i}", wrong, rate=0.2, seed=i) for i, wrong in enumerate([[50], [50, 51], [51, 52]])]
    flips = compare([make_result("ref", []), *seeds], 0.95, 500).flips
    assert {flip.text for flip in flips} == {"text 50", "text 51"}
    assert flips[0].after_share == pytest.approx(1 / 3)
    assert {(flip.before, flip.after) for flip in flips} == {("close", "none"), ("open", "close")}
    flips = compare([make_result("ref", []), *seeds[:2]], 0.95, 500).flips
    assert [flip.text for flip in flips] == ["text 50"]  # text 51 is a tie


def test_what_a_car_would_do_is_shown_where_all_results_know_it():
    acting = {"commands_obeyed": 0.8, "commands_obeyed_interval": [0.7, 0.9]}
    acting |= {"false_action_rate": 0.01, "false_action_interval": [0.002, 0.03]}
    knowing = [replace(result, metrics=result.metrics | acting) for result in (BASE, BETTER)]
    table = headline_table(compare(knowing, 0.95, 500))
    assert table.header[-2:] == ["commands obeyed", "false actions"]
    assert [cell.text for cell in table.rows[1][-2:]] == ["80.0 % [70.0, 90.0]", "1.0 % [0.2, 3.0]"]
    assert headline_table(compare([knowing[0], BETTER], 0.95, 500)).header[-1] == "log-loss"


def with_actions(result: Result, refused: Sequence[int] = (), no_action: str = "none") -> Result:
    """The result of a pipeline that says what a car would do: as predicted, but for the rows that a threshold stops."""
    nothing = INTENTS.index(no_action)
    answers = result.predicted_n.copy()
    answers[list(refused)] = nothing
    harmless = result.labels_n == nothing
    actions = Actions(result.texts, harmless, answers == result.labels_n, answers != nothing)
    shares = {
        "commands_obeyed": float(actions.hits("commands_obeyed").mean()),
        "false_action_rate": float(actions.hits("false_action_rate").mean()),
    }
    return replace(result, metrics=result.metrics | shares, actions=actions)


def test_what_a_car_would_do_is_tested_on_the_texts_that_each_metric_looks_at():
    commands = [i for i in range(NUM_ROWS) if i % 3 != 1]
    base = with_actions(BASE)
    shy = with_actions(
        replace(BASE, name="shy", settings=BASE.settings | {"calibrate.rate": 1}), refused=commands[-15:]
    )
    comparison = compare([base, shy], 0.9, 2000)
    (pair,) = comparison.pairs
    obeyed, false = pair.actions["commands_obeyed"], pair.actions["false_action_rate"]
    assert obeyed.difference.value == pytest.approx(-15 / 80)
    assert (obeyed.p, obeyed.method) == (pytest.approx(2 * 0.5**15), "exact McNemar")
    assert (false.difference.value, false.p) == (0, 1)
    assert pair.accuracy.p == 1  # thresholds aside
    cells = [cell.text for cell in action_table(comparison).rows[0]]
    assert cells[0] == "base → shy" and cells[1].startswith("-18.8 [") and cells[-1] == "fewer commands obeyed"
    assert not any(note.startswith("one seed each") for note in comparison.notes)  # it is one training
    # The evaluation has intervals of 95 %; of another level they come from the rows.
    low, high = share_interval(int(shy.actions.hits("commands_obeyed").sum()), 80, 0.9)
    shown = comparison.groups[1].metrics["commands_obeyed"]
    assert (shown.low, shown.high) == (low, high)
    assert json.loads(to_json(comparison))["pairs"][0]["actions"]["commands_obeyed"]["p"] == obeyed.p


def test_seeds_are_tested_together_in_what_a_car_would_do():
    def seeds(name: str, refused: int) -> list[Result]:
        rows = [[i for i in range(NUM_ROWS) if i % 3 != 1][: refused + seed] for seed in range(3)]
        return [with_actions(make_result(f"{name}{s}", [1 + 3 * s], rate=refused, seed=s), rows[s]) for s in range(3)]

    (pair,) = compare([*seeds("bold", 2), *seeds("shy", 30)], 0.95, 2000).pairs
    obeyed = pair.actions["commands_obeyed"]
    assert obeyed.difference.value == pytest.approx(-28 / 80)
    assert obeyed.p < 0.01 and obeyed.method == "paired bootstrap over rows and seeds"


def test_what_is_not_acted_on_the_same_texts_is_not_tested():
    other = with_actions(replace(BETTER, settings=BETTER.settings | {"calibrate.reject": "open"}), no_action="open")
    comparison = compare([with_actions(BASE), other], 0.95, 500)
    assert comparison.pairs[0].actions == {}
    assert any(note.startswith("commands obeyed and false actions are not tested") for note in comparison.notes)
    assert "What would a car do differently?" not in to_markdown(comparison)


def test_a_rerun_with_the_same_settings_is_called_so():
    again = replace(make_result("again", wrong=[3]), settings=BASE.settings)
    table = headline_table(compare([BASE, again], 0.95, 500))
    assert table.rows[1][1].text == "nothing: the same settings and seeds, run again"


def test_results_that_are_right_on_the_same_rows_are_not_called_luck():
    other = replace(BASE, name="other", settings=BASE.settings | {"train.rate": 0.2})
    (pair,) = compare([BASE, other], 0.95, 500).pairs
    assert verdict(pair, 0.95) == "right on the same rows"


def test_a_comparison_of_thresholds_says_that_they_do_not_count_here():
    stricter = replace(BETTER, settings=BETTER.settings | {"calibrate.max_false_action_rate": 0.1})
    (note,) = without_seeds(compare([BASE, stricter], 0.95, 2000).notes)
    assert note.startswith("accuracy and macro-F1 judge the likeliest intents: what calibrate.* changes is seen in")
    assert without_seeds(compare([BASE, BETTER], 0.95, 2000).notes) == []


def test_where_thresholds_alone_find_what_is_out_of_scope_they_count_and_log_loss_is_another():
    scope = {"prepare.out_of_scope_intent": "none", "prepare.out_of_scope_use": "threshold"}
    base, better = (replace(result, settings=result.settings | scope) for result in (BASE, BETTER))
    stricter = replace(better, settings=better.settings | {"calibrate.max_false_action_rate": 0.1})
    assert without_seeds(compare([base, stricter], 0.95, 2000).notes) == []
    both = replace(better, name="both", settings=better.settings | {"prepare.out_of_scope_use": "both"})
    (note,) = without_seeds(compare([base, both], 0.95, 2000).notes)
    assert note.startswith("the log-loss of base leaves out the out-of-scope rows")


def test_no_interval_leaves_what_a_metric_can_be():
    seeds = [replace(make_result(f"s{i}", [i]), metrics=BASE.metrics | {"log_loss": loss, "accuracy": 0.99})
             for i, loss in enumerate((0.01, 0.2))]  # fmt: skip
    seeds = [replace(seed, settings=seed.settings | {"train.seed": i}) for i, seed in enumerate(seeds)]
    (group,) = compare(seeds, 0.95, 500).groups
    assert group.metrics["log_loss"].low == 0.0 and group.metrics["log_loss"].high > 1


def test_f1_of_each_intent_is_sklearns_and_the_most_changed_comes_first():
    few = make_result("few", wrong=[0, 3, 6, 9, 12, 15, 18, 21], rate=0.2)
    intents = compare([make_result("ref", []), few], 0.95, 500).intents
    expected = f1_score(few.labels_n, few.predicted_n, average=None)
    assert {scores.intent: scores.f1["few"] for scores in intents} == pytest.approx(
        dict(zip(INTENTS, expected, strict=True))
    )
    changes = [abs(scores.f1["few"] - scores.f1["ref"]) for scores in intents]
    assert changes == sorted(changes, reverse=True)
    assert sum(scores.examples for scores in intents) == NUM_ROWS


def test_too_few_samples_for_so_many_pairs_are_said():
    many = [make_result(f"r{i}", list(range(i)), rate=i) for i in range(8)]
    assert any("--bootstrap-samples takes more" in note for note in compare(many, 0.95, 500).notes)
    assert not compare(many, 0.95, 2000).notes


def test_the_terminal_shows_results_tests_intents_and_flips_and_shortens_long_tables():
    file = io.StringIO()
    print_comparison(
        compare([BASE, make_result("bad", list(range(80)), rate=0.2)], 0.95, 500, notes=["x failed"]), file
    )
    text = file.getvalue()
    for part in (
        "83.3 % [78.3, 88.3]",
        "train.rate 0.1 → 0.2",
        "lower accuracy and lower macro-F1",
        "note: x failed",
    ):
        assert part in text
    assert "the first 20 of 60 rows" in text
    assert text.count("text ") < 40


def test_two_single_runs_that_are_told_apart_say_that_their_seeds_may_be_why():
    better, worse = make_result("better", [1]), make_result("worse", list(range(40)), rate=0.2)
    comparison = compare([better, worse], 0.95, 500)
    assert [note for note in comparison.notes if "one seed each: better and worse are different" in note]
    assert not compare([better, make_result("as good", [3], rate=0.2)], 0.95, 500).notes


def test_json_holds_everything_unrounded():
    read = json.loads(to_json(compare([BASE, BETTER], 0.95, 500, notes=["n"])))
    assert read["reference"] == "base"
    assert read["groups"][1]["changes"] == {"train.rate": {"reference": 0.1, "value": 0.2}}
    assert read["pairs"][0]["accuracy"]["p"] == mcnemar_p(BASE.right_n, BETTER.right_n)
    assert len(read["flips"]) == 19
    assert read["notes"][0] == "n" and read["notes"][1].startswith("one seed each: base and better")


HOSTILE = "<script>alert(1)</script> | `x` *y* \r\n ~~z~~ &lt;"


def hostile_comparison():
    texts = [HOSTILE if i == 5 else text for i, text in enumerate(BASE.texts)]
    results = (replace(result, texts=texts, name=f"a|b <i>{result.name}") for result in (BASE, BETTER))
    return compare(list(results), 0.95, 500)


def test_html_is_one_page_that_loads_nothing_and_runs_nothing():
    page = to_html(hostile_comparison())
    assert "&lt;script&gt;alert(1)" in page and "<i>" not in page
    assert not re.search(r"<script|<link|<img|https?:|@import|url\(|src=", page)
    assert page.count("<h2>") == 4


def test_markdown_tables_keep_their_columns_whatever_the_texts_hold():
    document = to_markdown(hostile_comparison())
    assert "<i>" not in document
    for block in re.findall(r"(?:^\|.*\n)+", document, flags=re.MULTILINE):
        columns = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1
    assert r"\<script\>" in document and r"\~\~z\~\~ \&lt;" in document and "\r" not in document
