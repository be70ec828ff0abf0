"""Facts of the data set that the pipeline's promise, and data/README.md, rest on."""

import csv
import io
import re
from collections import Counter
from pathlib import Path

import pytest

from intents.duplicates import near_duplicate_groups, normalise

DATA_DIR = Path(__file__).parent.parent / "data"
CSV_PATH = DATA_DIR / "raw" / "driver_intents.csv"
ACTIONS = {
    "driver_window_down",
    "passenger_window_down",
    "air_conditioner_on",
    "windshield_wipers_on",
    "high_beams_on",
}
ACTION_KINDS = {"plain", "polite", "terse", "indirect", "colloquial", "asr_noise", "typo", "long"}
NEAR_MISSES = {
    "opposite",
    "negation",
    "state_question",
    "other_device",
    "mention",
    "other_sense",
    "hypothetical",
}
NO_INTENT_KINDS = NEAR_MISSES | {"chitchat", "other_request"}

# "left" and "right" as a side of the car, not as in "right now" or "we've left the village".
_PART = r"(hand|side|front|rear|back|windows?|door|seat|passenger|driver|glass|pane|one)"
_SIDE = re.compile(
    rf"\b(left|right)[- ]?{_PART}\b"
    r"|\b(front|rear|back) (left|right)\b"
    r"|\b(on|to|at) (the|my|your|his|her|our) (left|right)\b"
    r"|\b(window|glass|pane|door|seat) (left|right)\b(?! (now|away|down|up|to|out|off|about|here|there))"
)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with CSV_PATH.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def _readme_tables() -> list[list[list[str]]]:
    """Return the tables of data/README.md: lists of rows of cells, the header first, no backquotes."""
    tables: list[list[list[str]]] = [[]]
    for line in (DATA_DIR / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    return [[table[0], *table[2:]] for table in tables if table]


def _readme_table(*header: str) -> list[dict[str, str]]:
    (table,) = [table for table in _readme_tables() if set(header) <= set(table[0])]
    return [dict(zip(table[0], cells, strict=True)) for cells in table[1:]]


def test_file_is_utf8_csv_with_the_documented_header_and_lf_line_ends(rows: list[dict[str, str]]) -> None:
    content = CSV_PATH.read_bytes().decode("utf-8")
    records = [["text", "intent", "kind"], *([row["text"], row["intent"], row["kind"]] for row in rows)]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(records)
    assert content == written.getvalue()


def test_every_text_is_one_trimmed_line(rows: list[dict[str, str]]) -> None:
    assert [row["text"] for row in rows if row["text"] != " ".join(row["text"].split()) or not row["text"]] == []


def test_every_action_has_at_least_250_rows_and_15_of_each_kind(rows: list[dict[str, str]]) -> None:
    counts = Counter(row["intent"] for row in rows)
    assert set(counts) == ACTIONS | {"no_intent"}
    assert min(counts[intent] for intent in ACTIONS) >= 250
    of_kind = Counter((row["intent"], row["kind"]) for row in rows)
    assert min(of_kind[intent, kind] for intent in ACTIONS for kind in ACTION_KINDS) >= 15


def test_no_intent_has_at_least_1200_rows_and_900_near_misses_of_all_seven_kinds(
    rows: list[dict[str, str]],
) -> None:
    kinds = Counter(row["kind"] for row in rows if row["intent"] == "no_intent")
    assert kinds.total() >= 1200
    assert sum(kinds[kind] for kind in NEAR_MISSES) >= 900
    assert min(kinds[kind] for kind in NEAR_MISSES) >= 100


def test_actions_and_no_intent_have_their_own_kinds(rows: list[dict[str, str]]) -> None:
    assert {row["kind"] for row in rows if row["intent"] in ACTIONS} == ACTION_KINDS
    assert {row["kind"] for row in rows if row["intent"] == "no_intent"} == NO_INTENT_KINDS


def test_no_text_occurs_twice_apart_from_case_and_punctuation(rows: list[dict[str, str]]) -> None:
    counts = Counter(normalise(row["text"]) for row in rows)
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_two_texts_are_near_duplicates(rows: list[dict[str, str]]) -> None:
    groups = near_duplicate_groups([row["text"] for row in rows], 0.7)
    assert [rows[at]["text"] for at, group in enumerate(groups) if at != group] == []


def test_no_action_names_left_or_right_for_a_side(rows: list[dict[str, str]]) -> None:
    actions = [row["text"] for row in rows if row["intent"] in ACTIONS]
    assert [text for text in actions if _SIDE.search(text.casefold())] == []


@pytest.mark.parametrize(
    "text",
    [
        "open the left window",
        "the right-hand window please",
        "window on the left, down",
        "lower the front right glass",
        "the window right, open it",
        "put the one on my right down",
    ],
)
def test_left_and_right_as_a_side_are_found(text: str) -> None:
    assert _SIDE.search(text)


def test_readme_states_the_rows_per_intent(rows: list[dict[str, str]]) -> None:
    stated = {row["intent"]: int(row["rows"]) for row in _readme_table("intent", "rows")}
    assert stated == {**Counter(row["intent"] for row in rows), "all": len(rows)}


def test_readme_states_the_rows_per_kind(rows: list[dict[str, str]]) -> None:
    tables = (
        _readme_table("kind", *ACTIONS),
        _readme_table("kind", "no_intent"),
    )
    stated = {
        (intent, row["kind"]): int(count)
        for table in tables
        for row in table
        for intent, count in row.items()
        if intent in ACTIONS | {"no_intent"}
    }
    assert stated == Counter((row["intent"], row["kind"]) for row in rows)


def test_readme_splits_the_first_near_misses_by_device_without_a_rest(rows: list[dict[str, str]]) -> None:
    table = _readme_table("near miss of", *NEAR_MISSES)
    kinds = Counter(row["kind"] for row in rows[:3830])
    assert {kind: sum(int(row[kind]) for row in table) for kind in NEAR_MISSES} == {
        kind: kinds[kind] for kind in NEAR_MISSES
    }
    assert [int(row["all"]) for row in table] == [sum(int(row[kind]) for kind in NEAR_MISSES) for row in table]


def test_readme_sums_up_the_near_misses(rows: list[dict[str, str]]) -> None:
    text = (DATA_DIR / "README.md").read_text(encoding="utf-8")
    assert f"near misses, {sum(row['kind'] in NEAR_MISSES for row in rows):,} rows" in text
    assert f"holds {len(rows):,} English utterances" in text
