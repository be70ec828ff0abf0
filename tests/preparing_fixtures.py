"""Small tables of texts, as read from files, and the call that prepares them."""

from pathlib import Path

from intents.preparing import prepare
from intents.records import RawRows

VERBS = ["open", "lower", "shut", "raise", "wash", "move"]
THINGS = [
    "left window",
    "rear seat",
    "glove box",
    "sun roof",
    "fuel cap",
    "hand brake",
    "trunk lid",
    "arm rest",
]
INTENT_OF = {
    "open": "open",
    "lower": "open",
    "shut": "close",
    "raise": "close",
    "wash": "other",
    "move": "other",
}
PLAIN = [(f"{verb} {thing}", INTENT_OF[verb]) for verb in VERBS for thing in THINGS]  # 16 texts of each intent


def table(rows, path="data/some.csv", split=""):
    """Return what is read from a file; rows are (text, intent) or (text, intent, split)."""
    texts, intents, splits = zip(*((*row, split)[:3] for row in rows), strict=True)
    numbers = list(range(2, len(rows) + 2))
    return RawRows(Path(path), numbers, list(texts), list(intents), [""] * len(rows), list(splits))


def run(*tables, **changes):
    """Prepare with settings that differ from those of most tests by `changes` alone."""
    settings = {
        "exclude_intents": (),
        "out_of_scope_intent": None,
        "train_on_out_of_scope": True,
        "conflicts": "error",
        "shares": {"validation": 0.2, "test": 0.25},
        "threshold": 0.7,
        "drop_near_official": True,
        "seed": 0,
    }
    return prepare(tables, RawRows(Path("none.csv")), **(settings | changes))


def texts_of(prepared, *splits):
    """Return the texts of some splits."""
    return {text for split in splits for text in prepared.splits[split]["text"]}
