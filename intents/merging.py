"""From a corrected review to the changes of the files that it was made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from intents.correcting import edit_table
from intents.duplicates import normalise
from intents.records import Columns, RawRows
from intents.review_files import UNLABELLED, ReviewRow

_Place = tuple[str, int]  # file and row


@dataclass
class Merge:
    """What a review asks for, and how many of its corrections the files hold already."""

    changed: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)  # file -> row -> old and new intent
    added: dict[str, str] = field(default_factory=dict)  # text -> intent
    num_done: int = 0

    def __bool__(self) -> bool:
        return bool(self.changed or self.added)


def plan_merge(
    review_path: Path,
    reviewed: Sequence[ReviewRow],
    tables: Sequence[RawRows],
    new_intents: bool = False,
    read_texts: Callable[[Path], Mapping[int, str]] | None = None,
) -> Merge:
    """Return what the corrections in `reviewed`, read from `review_path`, change in `tables`.

    Rows without a `corrected_intent` ask for nothing. A correction holds for all rows with the same text, but for case
    and punctuation, that have the intent it corrects. `new_intents` allows intents that no row of `tables` has.
    `read_texts` returns the texts by row of a file of unlabelled ones: those that are added must stand there still.

    Raises:
        ValueError: a correction does not fit the tables any more, contradicts another or names an unknown intent; all
            of them are listed in one message.

    """
    plan = Merge()
    known = {intent for table in tables for intent in table.intents}
    by_place = {
        (table.path.as_posix(), number): (text, intent)
        for table in tables
        for number, text, intent in zip(table.numbers, table.texts, table.intents, strict=True)
    }
    by_text = {normalise(text): intent for text, intent in by_place.values()}
    alike: dict[str, list[_Place]] = {}
    for place, (text, _) in by_place.items():
        alike.setdefault(normalise(text), []).append(place)
    unlabelled: dict[str, Mapping[int, str]] = {}
    problems = []
    for number, row in enumerate(reviewed, start=2):
        if not row.corrected_intent:
            continue
        if row.corrected_intent not in known and not new_intents:
            problem = (
                f"unknown corrected_intent {row.corrected_intent!r}; the data has: {', '.join(sorted(known))}"
                " (--new-intents allows others)"
            )
        elif row.reason == UNLABELLED:
            if read_texts and row.file not in unlabelled and Path(row.file).is_file():
                unlabelled[row.file] = read_texts(Path(row.file))
            there = unlabelled[row.file].get(row.row, "") if row.file in unlabelled else row.text
            problem = _unlike(row, there) or _plan_added(plan, row, by_text)
        else:
            problem = _plan_changed(plan, row, by_place, alike)
        if problem:
            problems.append(f"  {review_path}, row {number}: {problem}")
    if problems:
        raise ValueError("\n".join([f"{len(problems)} correction(s) do not fit; no file was changed", *problems]))
    return plan


def _plan_added(plan: Merge, row: ReviewRow, by_text: dict[str, str]) -> str:
    intent = by_text.get(normalise(row.text))
    if intent is None:
        by_text[normalise(row.text)] = row.corrected_intent
        plan.added[row.text] = row.corrected_intent
    elif intent == row.corrected_intent:
        plan.num_done += 1
    else:
        return f"the text {row.text!r} is {intent} already, not {row.corrected_intent}"
    return ""


def _unlike(row: ReviewRow, there: str) -> str:
    """Return a problem where the text of `row` is another than `there`, the one in its file."""
    if there.splitlines() == row.text.splitlines():  # spreadsheets write line ends of their own
        return ""
    found = f"there stands {there!r}" if there else "there is no such row"
    return (
        f"{row.file}, row {row.row} should be {row.text!r}, but {found}; run python -m apps.review anew (and where a"
        " spreadsheet turned texts into numbers or dates, open the file with all columns as text)"
    )


def _plan_changed(
    plan: Merge, row: ReviewRow, by_place: dict[_Place, tuple[str, str]], alike: dict[str, list[_Place]]
) -> str:
    text, intent = by_place.get((row.file, row.row), ("", ""))
    problem = _unlike(row, text)
    if problem:
        return problem
    _, asked = plan.changed.get(row.file, {}).get(row.row, (intent, row.corrected_intent))
    if asked != row.corrected_intent:
        return f"{row.file}, row {row.row} is corrected to {asked} above, and to {row.corrected_intent} here"
    if intent not in (row.intent, row.corrected_intent):
        return (
            f"{row.file}, row {row.row} was {row.intent} when it was reviewed and is {intent} now; run"
            " python -m apps.review anew"
        )
    # Where the row itself is corrected already, the same text elsewhere may not be.
    repeats = [place for place in alike[normalise(text)] if by_place[place][1] == row.intent != row.corrected_intent]
    if not repeats:
        plan.num_done += 1
    for file, number in repeats:
        _, asked = plan.changed.get(file, {}).get(number, (row.intent, row.corrected_intent))
        if asked != row.corrected_intent:
            return (
                f"{row.file}, row {row.row} is corrected to {row.corrected_intent}, and the same text in {file},"
                f" row {number} to {asked}"
            )
    for file, number in repeats:
        plan.changed.setdefault(file, {})[number] = (row.intent, row.corrected_intent)
    return ""


def apply_merge(plan: Merge, tables: Sequence[RawRows], columns: Columns, encoding: str) -> None:
    """Write what `plan` asks for; rows are appended to the first of `tables`, as training rows where it has splits."""
    for table in tables:
        added = plan.added if table is tables[0] else {}
        split = {columns.split: "train"} if columns.split and any(table.splits) else {}
        new = [{columns.text: text, columns.intent: intent, **split} for text, intent in added.items()]
        changed = {row: after for row, (_, after) in plan.changed.get(table.path.as_posix(), {}).items()}
        if changed or new:
            edit_table(table.path, columns.intent, changed, new, encoding)
