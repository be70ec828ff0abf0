"""Answers tables of texts with a classifier: files, folders and globs, local or remote, or a pipe.

Every row keeps its place and its columns, and gets an intent, a confidence and, where it cannot be answered, a reason.

    python -m apps.predict calls.csv answers.csv
    python -m apps.predict s3://bucket/calls/ s3://bucket/answers/ --probabilities
    zcat calls.jsonl.gz | python -m apps.predict - - --input-format jsonl
"""

import argparse
import sys
import time
from pathlib import Path

from intents.bulk.answering import Counts, Decider, Engine, answer_table, local_engine
from intents.bulk.finished import FinishedParts, sha256_of_classifier
from intents.bulk.loading import DEFAULT_VARIANT, has_model, is_onnx, load_scorer
from intents.bulk.parts import Part, plan_parts
from intents.bulk.places import FORMATS, is_remote, size_of, user_errors
from intents.bulk.progress import Bar
from intents.bulk.scoring import Scorer
from intents.calibrations import CALIBRATION_FILE
from intents.cli import clean_up_when_ended, run
from intents.exported import MODEL_FILES
from intents.listing import listed

MODEL_DIRS = ("models/onnx", "models/classifier")
_SETTINGS = (
    "text_column",
    "probabilities",
    "prefix",
    "encoding",
    "input_format",
    "variant",
)  # those that change an answer
_SHOWN_FAILURES = 10
_SHOWN_NAMES = 5


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings."""
    parser = argparse.ArgumentParser(prog="python -m apps.predict", description="Answer tables of texts.")
    add = parser.add_argument
    tables = "a .csv, .tsv, .jsonl (also .gz) or .parquet file"
    add("input", metavar="INPUT", help=f"{tables}, a folder, glob or URL of them, or -")
    add("output", metavar="OUTPUT", help=f"{tables}, a folder where INPUT is a folder or glob, or -")
    add("--text-column", default="text", metavar="NAME", help="column with the texts (default: text)")
    add("--probabilities", action="store_true", help="add a column probability_INTENT for each intent")
    add("--prefix", default="", help="put before the answers' column names, where the input has such names")
    add(
        "--model",
        metavar="FOLDER",
        help=f"classifier (default: the first there is of {', '.join(MODEL_DIRS)})",
    )
    add("--rev", help="take the classifier of this branch, tag, commit or DVC experiment")
    add("--variant", choices=list(MODEL_FILES), help=f"of an exported classifier (default: {DEFAULT_VARIANT})")
    add("--threads", type=int, metavar="N", help="cores to use (default: all); with ray, per worker (1)")
    add("--engine", choices=("local", "ray"), default="local", help="ray: on RAY_ADDRESS's cluster, or here")
    add("--encoding", default="utf-8", help="of CSV, TSV and JSONL inputs (default: utf-8)")
    add("--input-format", choices=FORMATS, help="for - and unknown suffixes")
    add("--output-format", choices=FORMATS, help="for - and unknown suffixes, and to convert a folder")
    parsed = parser.parse_args(arguments)
    if parsed.threads is not None and parsed.threads < 1:
        parser.error(f"--threads must be at least 1, got {parsed.threads}")
    return parsed


def find_model(model: str | None, rev: str | None) -> Path:
    """Return the folder of the classifier that the command line asks for."""
    if rev is None:
        found = [Path(model)] if model else [Path(name) for name in MODEL_DIRS]
        return next((folder for folder in found if has_model(folder)), found[-1])
    from apps.revisions import NoSuchOutputError, fetch_output

    names = [model] if model else list(MODEL_DIRS)
    for name in names[:-1]:
        try:
            return fetch_output(rev, name)
        except NoSuchOutputError:
            continue  # not exported in that revision: its checkpoint answers
    folder = fetch_output(rev, names[-1])
    if not has_model(folder):
        raise ValueError(f"{names[-1]} holds no classifier in revision {rev!r}; valid are {' and '.join(MODEL_DIRS)}")
    return folder


def find_variant(options: argparse.Namespace, model_dir: Path) -> str:
    """Return which graph of the classifier in `model_dir` to take, and say where there is none to choose from.

    Raises:
        ValueError: the command line asks for a variant of a classifier that is not exported.

    """
    if has_model(model_dir) and not is_onnx(model_dir):
        if options.variant:
            raise ValueError(
                f"--variant {options.variant}: {model_dir} is a checkpoint, which has no variants; leave --variant out,"
                f" or `dvc pull {MODEL_DIRS[0]}`"
            )
        if options.model is None:
            print(
                f"no {MODEL_DIRS[0]}{' in ' + options.rev if options.rev else ''}: {model_dir} answers", file=sys.stderr
            )
    return options.variant or DEFAULT_VARIANT


def answer_parts(parts: list[Part], engine: Engine, decider: Decider, finished: FinishedParts | None) -> Counts:
    """Answer `parts` one after the other; a part that fails leaves the others alone.

    Raises:
        ValueError: some parts failed; the others are written.

    """
    bar = Bar([size_of(part.source.place) for part in parts])
    counts, failures = Counts(), []
    try:
        for index, part in enumerate(parts):
            bar.start(index)
            try:
                target, kind = part.target, part.target_format
                made_from = finished.made_from(part) if finished else {}
                answered = answer_table(part.source, target, kind, engine, decider, bar.advance)
                if finished:
                    finished.add(part, answered, made_from)
                counts += answered
            except user_errors() as error:
                if finished is None:
                    raise
                failures.append(f"  {part.name}: {error}")
    finally:
        bar.close()
    if failures:
        hidden = len(failures) - _SHOWN_FAILURES
        more = [f"  ... and {hidden} more"] if hidden > 0 else []
        raise ValueError(
            f"{len(failures)} of {len(parts)} parts failed; once what is wrong is mended, the same command"
            " answers only these\n" + "\n".join([*failures[:_SHOWN_FAILURES], *more])
        )
    return counts


def make_engine(options: argparse.Namespace, model_dir: Path, scorer: Scorer, parts: list[Part]) -> Engine:
    """Return what scores the windows of `parts`."""
    if options.engine == "local":
        return local_engine(scorer)
    from intents.bulk.ray_engine import ray_engine

    sources = [part.source for part in parts]
    return ray_engine(sources, model_dir, len(scorer.intents), options.variant, options.threads or 1)


def predict(options: argparse.Namespace) -> None:
    """Answer what the command line names, and say on standard error how many rows were answered."""
    plan = plan_parts(
        options.input,
        options.output,
        options.text_column,
        options.encoding,
        options.input_format,
        options.output_format,
    )
    model_dir = find_model(options.model, options.rev).resolve()
    options.variant = find_variant(options, model_dir)
    scorer = load_scorer(model_dir, options.variant, options.threads)
    if not is_onnx(model_dir) and not (model_dir / CALIBRATION_FILE).is_file():  # an exported one has it inside
        print(f"{model_dir} has no {CALIBRATION_FILE}: no threshold holds an answer back", file=sys.stderr)
    decider = Decider(tuple(scorer.intents), scorer.calibration, options.probabilities, options.prefix)
    parts, finished, before = plan.parts, None, Counts()
    if plan.folder:
        settings = {name: getattr(options, name) for name in _SETTINGS}
        finished = FinishedParts(plan.folder, {**settings, "model": sha256_of_classifier(model_dir)})
        known = {part: finished.find(part) for part in parts}
        before = sum((counts for counts in known.values() if counts), Counts())
        parts = [part for part in parts if known[part] is None]
    if plan.left_out:
        print(f"left out, no tables: {listed(plan.left_out, _SHOWN_NAMES)}", file=sys.stderr)
    started = time.perf_counter()
    counts = Counts()
    if parts:
        counts = answer_parts(parts, make_engine(options, model_dir, scorer, parts), decider, finished)
    _say(counts, before, time.perf_counter() - started)


def _say(counts: Counts, before: Counts, seconds: float) -> None:
    total = counts + before
    bad = f", {total.bad} of them bad (see the reason column)" if total.bad else ""
    earlier = f"; {before.rows} were answered by an earlier run" if before.rows else ""
    rate = counts.rows / seconds if seconds else 0
    print(f"{total.rows} rows{bad}{earlier}; {seconds:.1f} s, {rate:.0f} rows/s", file=sys.stderr)


def main() -> None:
    """Run the command."""
    clean_up_when_ended()
    options = parse_arguments()
    try:
        predict(options)
    except user_errors() as error:
        places = [place for place in (options.input, options.output) if is_remote(place)]
        of_a_store = isinstance(error, FileNotFoundError) and not error.strerror and bool(places)
        if isinstance(error, (ValueError, OSError)) and not of_a_store:
            raise  # the others, of a library, name no place, and intents.cli does not know them
        raise ValueError(f"{' or '.join(places)}: {error}") from None


if __name__ == "__main__":
    run(main)
