"""Lists rows whose label deserves a second look, or unlabelled texts worth a label, and merges the answers.

    python -m apps.review                            labels that look wrong: a table, and review.csv to correct
    python -m apps.review --unlabelled calls.csv     the texts in it most worth labelling, likewise
    python -m apps.review --merge review.csv         writes the column corrected_intent into the data

Reads data/prepared, models/encoder and the files that params.yaml names under `prepare`; --merge alone changes those.
The test split is left out: mending those test rows that a model gets wrong flatters the model.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from apps.review_data import LengthParams, ReviewedParams, read_prepared
from intents.cli import run
from intents.params import load_params
from intents.records import RawRows
from intents.rows import SPLITS

ENCODER_DIR = Path("models/encoder")
CLASSIFIER_DIR = Path("models/classifier")
DEFAULT_OUTPUT = Path("review.csv")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.review", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--unlabelled", type=Path, metavar="FILE", help="table of texts (.csv, .tsv, .jsonl, .parquet) to choose from"
    )
    what.add_argument("--merge", type=Path, metavar="REVIEW", help="corrected review to write into the data")
    add("--top", type=int, default=50, metavar="N", help="rows of each kind to list (default: 50)")
    add("--output", type=Path, default=DEFAULT_OUTPUT, metavar="FILE", help=f"review to write ({DEFAULT_OUTPUT})")
    add("--min-similarity", type=float, default=0.85, help="cosine from which on rows are neighbours (default: 0.85)")
    add("--include-test", action="store_true", help="list test rows, too: metrics on them mean less afterwards")
    add("--text-column", metavar="NAME", help="column of the unlabelled texts (default: prepare.text_column)")
    add("--new-intents", action="store_true", help="with --merge: allow intents that the data does not have yet")
    parsed = parser.parse_args(arguments)
    if parsed.top < 1:
        parser.error(f"--top must be at least 1, got {parsed.top}")
    if not -1 <= parsed.min_similarity <= 1:
        parser.error(f"--min-similarity must lie between -1 and 1, got {parsed.min_similarity}")
    return parsed


def list_labelled(options: argparse.Namespace, params: ReviewedParams) -> None:
    """List the labelled rows that deserve a second look."""
    from intents.duplicates import near_duplicate_groups
    from intents.features import encode_texts
    from intents.reviewing import review_labelled
    from intents.suspects import require_cleanlab

    require_cleanlab()
    tables = params.read()
    refuse_to_lose_corrections(options.output, tables)
    rows = read_prepared(tables, SPLITS if options.include_test else ("train", "validation"))
    texts = [row.text for row in rows]
    features_nd = encode_texts(ENCODER_DIR, texts, load_params("tokenize", LengthParams).max_length)
    groups_n = near_duplicate_groups(texts, params.near_duplicate_threshold)
    finish(options, review_labelled(rows, features_nd, groups_n, options.top, options.min_similarity))
    if options.include_test:
        print("test rows are among them: who mends those a model gets wrong measures it too well afterwards")


def list_unlabelled(options: argparse.Namespace, params: ReviewedParams) -> None:
    """List the unlabelled texts most worth labelling."""
    from intents.features import encode_texts
    from intents.review_files import read_unlabelled
    from intents.reviewing import review_unlabelled, without_known

    tables = params.read()
    refuse_to_lose_corrections(options.output, tables)
    column = options.text_column or params.text_column
    found, left_out = read_unlabelled(options.unlabelled, column, params.encoding)
    known = [text for table in tables.values() for text in table.texts]
    rows, groups_n = without_known(found, known, params.near_duplicate_threshold)
    print(f"{options.unlabelled}: {len(found) - len(rows)} of {len(found)} texts are in the data already")
    for reason, count in left_out.most_common():
        print(f"left out: {count} row(s): {reason}")
    if not rows:
        return print("nothing to label")
    encode = partial(encode_texts, ENCODER_DIR, max_length=load_params("tokenize", LengthParams).max_length)
    intents, probabilities_nc = score([row.text for row in rows], tables, encode)
    finish(options, review_unlabelled(rows, probabilities_nc, intents, groups_n, encode, options.top))


def score(texts: list[str], tables: dict[str, RawRows], encode: Any) -> tuple[Sequence[str], Any]:
    """Return the intents and their probabilities for each text: by the trained classifier, or else a simple model."""
    from intents.bulk.loading import has_model, load_scorer
    from intents.features import with_words
    from intents.reviewing import label_numbers
    from intents.suspects import new_model

    lack = f"there is no {CLASSIFIER_DIR}"
    if has_model(CLASSIFIER_DIR):
        scorer = load_scorer(CLASSIFIER_DIR)
        foreign = set(scorer.intents) - {intent for table in tables.values() for intent in table.intents}
        if not foreign:
            return scorer.intents, scorer.probabilities(texts)
        lack = f"{CLASSIFIER_DIR} is of other data (no row has the intent {min(foreign)!r})"
    print(f"{lack}: scoring with logistic regression")
    examples = read_prepared(tables, ("train", "validation"))
    intents, labels_n = label_numbers(examples)
    every = [*(row.text for row in examples), *texts]
    inputs_nx = with_words(encode(every), every)
    model = new_model().fit(inputs_nx[: len(examples)], labels_n)
    return intents, model.predict_proba(inputs_nx[len(examples) :])


def refuse_to_lose_corrections(output: Path, tables: dict[str, RawRows]) -> None:
    """Raise ValueError where `output` holds corrections that are not in the data yet."""
    from intents.merging import plan_merge
    from intents.review_files import read_review

    if output.exists():
        remedy = f"merge it ({_merging(output)}), delete it or choose another --output"
        try:
            unmerged = plan_merge(output, read_review(output), list(tables.values()), new_intents=True)
        except ValueError as error:
            raise ValueError(f"{output} would be overwritten, {remedy}: {error}") from None
        if unmerged:
            raise ValueError(f"{output} has corrections that are not in the data yet: {remedy}")


def finish(options: argparse.Namespace, rows: list[Any]) -> None:
    """Print `rows`, write them to the file that the command line names, and say what to do with it."""
    from apps.review_table import print_review
    from intents.review_files import write_review

    if not rows:
        print("nothing to review")
        return
    print_review(rows, sys.stdout)
    write_review(options.output, rows)
    print(f"{options.output} has these {len(rows)} rows. Fill in corrected_intent where an intent is wrong or missing,")
    column = f" --text-column {shlex.quote(options.text_column)}" if options.text_column else ""
    print(f"leave it empty elsewhere, then: {_merging(options.output)}{column}")


def _merging(output: Path) -> str:
    return f"python -m apps.review --merge {shlex.quote(str(output))}"


def merge(options: argparse.Namespace, params: ReviewedParams) -> None:
    """Write the corrections of a review into the source files."""
    from intents.merging import apply_merge, plan_merge
    from intents.review_files import read_review, read_unlabelled

    def read_texts(path: Path) -> dict[int, str]:
        rows, _ = read_unlabelled(path, options.text_column or params.text_column, params.encoding)
        return {row.row: row.text.strip() for row in rows}

    tables = list(params.read().values())
    plan = plan_merge(options.merge, read_review(options.merge), tables, options.new_intents, read_texts)
    apply_merge(plan, tables, params.columns, params.encoding)
    for file, changed in plan.changed.items():
        for row, (before, after) in sorted(changed.items()):
            print(f"{file}, row {row}: {before} -> {after}")
    for text, intent in plan.added.items():
        print(f"{tables[0].path}: added {intent}: {text}")
    if plan.num_done:
        print(f"{plan.num_done} correction(s) were in the data already")
    print("now: make repro" if plan else "no corrections to merge: the column corrected_intent is empty or done")


def main() -> None:
    """Run the command."""
    options = parse_arguments(sys.argv[1:])
    params = load_params("prepare", ReviewedParams)
    if options.merge:
        merge(options, params)
    elif options.unlabelled:
        list_unlabelled(options, params)
    else:
        list_labelled(options, params)


if __name__ == "__main__":
    run(main)
