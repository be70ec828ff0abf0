"""Compares results of revisions on the same test rows: how much better, in what, and could it be luck.

    python -m apps.compare                 HEAD and all its experiments; without any, HEAD and the workspace
    python -m apps.compare NAME            HEAD and that experiment, branch, tag or commit
    python -m apps.compare NAME NAME ...   these, the first as the reference; "workspace" is one, too
    python -m apps.compare --html -o comparison.html

Reads dvc.lock, params.yaml, metrics/evaluate.json and data/predictions/test.parquet of each, through DVC; writes
nothing but the file that --output names. Results that differ in seeds alone are one group. Experiments that failed
or that have not finished never take part; they are listed.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apps.experiments import finished_experiments, unfinished_experiments
from apps.revisions import resolve
from intents.cli import run
from intents.grouping import Result, rows_differ

if TYPE_CHECKING:
    from intents.comparing import Comparison

DEFAULT_SAMPLES = 10_000


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("revisions", nargs="*", metavar="REV", help="workspace, branch, tag, commit or experiment")
    style = parser.add_mutually_exclusive_group()
    for name, meaning in (
        ("json", "everything, unrounded"),
        ("md", "Markdown"),
        ("html", "one self-contained page"),
    ):
        style.add_argument(f"--{name}", dest="style", action="store_const", const=name, help=meaning)
    parser.add_argument("-o", "--output", type=Path, help="file to write instead of standard output")
    parser.add_argument("--confidence-level", type=float, default=0.95, help="of intervals and verdicts (default 0.95)")
    parser.add_argument("--bootstrap-samples", type=int, default=DEFAULT_SAMPLES, help=f"default {DEFAULT_SAMPLES}")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if an experiment was left out")
    parsed = parser.parse_args(arguments)
    if not 0 < parsed.confidence_level < 1:
        parser.error(f"--confidence-level must lie between 0 and 1, got {parsed.confidence_level}")
    if parsed.bootstrap_samples < 100:
        parser.error(f"--bootstrap-samples must be at least 100, got {parsed.bootstrap_samples}")
    if parsed.output and not parsed.style:
        parser.error(f"--output {parsed.output} needs one of --json, --md and --html")
    return parsed


def main() -> None:
    """Run the command."""
    arguments = parse_arguments(sys.argv[1:])
    from intents.comparing import compare

    results, left_out = gather_named(arguments.revisions) if arguments.revisions else gather_experiments()
    comparison = compare(results, arguments.confidence_level, arguments.bootstrap_samples, notes=left_out)
    _write(comparison, arguments.style, arguments.output)
    if arguments.strict and left_out:
        raise ValueError(
            f"{len(left_out)} experiment(s) left out, as said above; `dvc queue remove --failed` forgets failed ones"
        )


def gather_named(revisions: Sequence[str]) -> tuple[list[Result], list[str]]:
    """Return the results of `revisions`, with HEAD before a single one.

    Raises:
        ValueError: one of them has no result.

    """
    from apps.results import WORKSPACE, ResultReader

    names = dict.fromkeys(["HEAD", *revisions] if len(revisions) == 1 else revisions)
    unfinished, finished = unfinished_experiments(), finished_experiments()
    commits: dict[str, str | None] = {}
    for name in names:
        if name in unfinished and name not in finished:
            raise ValueError(f"{unfinished[name]}; it has no result to compare")
        commits[name] = other = None if name == WORKSPACE else resolve(name)
        if other and finished.get(name, other) != other:
            raise ValueError(
                f"{name!r} is an experiment and a branch or tag as well; name one of them by its commit:"
                f" {finished[name][:12]} is the experiment's, {other[:12]} the other's"
            )
    with ResultReader() as reader:
        return [reader.read(name, commit) for name, commit in commits.items()], []


def gather_experiments() -> tuple[list[Result], list[str]]:
    """Return the results of HEAD and its experiments, or of HEAD and the workspace, and a line for each left out.

    Raises:
        ValueError: none of them has a result.

    """
    from apps.results import WORKSPACE, ResultReader

    finished = finished_experiments()
    results: list[Result] = []
    left_out = [line for name, line in unfinished_experiments().items() if name not in finished]
    with ResultReader() as reader:
        for name in ["HEAD", *(finished or [WORKSPACE])]:
            try:
                result = reader.read(name, finished.get(name))
            except ValueError as error:
                left_out.append(f"left out: {error}")
                continue
            reason = rows_differ(results[0], result) if results else ""
            if reason:
                left_out.append(f"left out: {reason}")
            else:
                results.append(result)
    if not results:
        raise ValueError("; ".join(left_out))
    return results, left_out


def _write(comparison: Comparison, style: str | None, output: Path | None) -> None:
    from intents.comparison_output import print_comparison, to_html, to_json, to_markdown
    from intents.files import write_text

    if style is None:
        return print_comparison(comparison, sys.stdout)
    text = {"json": to_json, "md": to_markdown, "html": to_html}[style](comparison)
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as the page says, and JSON must be
        sys.stdout.write(text)
    else:
        write_text(output, text)
        print(f"{output} has the comparison")


if __name__ == "__main__":
    run(main)
