"""The pipeline on BANKING77, CLINC150 and few-shot BANKING77, over seeds, beside published figures.

The stages of dvc.yaml run as they are; a set's settings are params.yaml and what benchmarks/public/<set>.yaml changes.
The data comes from ../shared/data or the folder that INTENTS_PUBLIC_DATA names; sets whose data is absent are skipped.
Writes results.json and results.md beside this file; they hold of each set the seeds of its last run. What ran is kept
in .cache/public (delete it at any time): an interrupted benchmark goes on, and only what changed runs anew.

    python -m benchmarks.public.run                                     all sets, 5 seeds
    python -m benchmarks.public.run banking77 --seeds 0 1 --results trial
    python -m benchmarks.public.run clinc150 --validation-only -S prepare.out_of_scope_use=threshold

An experiment (-S or --validation-only) goes to experiments.json and to the last table of results.md, which shows its
figures on validation: settings are chosen by these. With --validation-only the test split reaches no stage but prepare
(which looks for near-duplicates) and tokenize.
"""

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.public.pipeline import Pipeline
from benchmarks.public.results import INTRODUCTION, NAMES, Run, experiment_table, figures, per_cent, section, shown
from benchmarks.public.sets import DATA_VARIABLE, LIKE, SETS, missing_files, write_sources
from intents.cli import run
from intents.files import write_json, write_text
from intents.params import read_params

HERE = Path(__file__).parent
CACHE_DIR = Path(".cache/public")
SPLIT_STAGES = ("encoder", "prepare", "tokenize", "train", "calibrate")
TEST_STAGES = ("baselines", "evaluate")
Params = dict[str, dict[str, Any]]


def merge(params: Params, changes: Mapping[str, Any], where: str) -> Params:
    """Return `params` with `changes`, which come from `where`.

    Raises:
        ValueError: `params` lacks a section or setting of `changes`.

    """
    merged = {section: dict(settings) for section, settings in params.items()}
    for section_name, settings in changes.items():
        if section_name not in params:
            raise ValueError(f"{where}: params.yaml has no section {section_name!r}; it has: {', '.join(params)}")
        for name, value in settings.items():
            if name not in params[section_name]:
                valid = ", ".join(params[section_name])
                raise ValueError(f"{where}: {section_name}.{name}: unknown setting; {section_name} has: {valid}")
            merged[section_name][name] = value
    return merged


def settings_of(name: str) -> Params:
    """Return what a set changes in params.yaml: what its file says, beside that of the set that it is like."""
    changes: Params = read_params(HERE / f"{LIKE.get(name, name)}.yaml")
    if name in LIKE:
        for section_name, settings in read_params(HERE / f"{name}.yaml").items():
            changes[section_name] = changes.get(section_name, {}) | settings
    return changes


def parse_changes(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the settings in `section.name=value` as sections.

    Raises:
        ValueError: one has another form.

    """
    changes: dict[str, dict[str, Any]] = {}
    for text in given:
        dotted, equals, value = text.partition("=")
        section_name, _, name = dotted.partition(".")
        if not (equals and name):
            raise ValueError(f"-S {text}: must be section.name=value, such as train.num_epochs=5")
        changes.setdefault(section_name, {})[name] = yaml.safe_load(value)
    return changes


def check_test_rows(rejected_path: Path, test_source: str) -> None:
    """Refuse to leave out official test rows, apart from exact repeats, which are counted once.

    Raises:
        ValueError: a row is left out for another reason.

    """
    with rejected_path.open(encoding="utf-8", newline="") as file:
        of_test = [row for row in csv.DictReader(file) if row["file"] == test_source]
    doomed = next((row for row in of_test if row["reason"] != "exact repeat"), None)
    if doomed:
        raise ValueError(f"{test_source}, row {doomed['row']}: an official test row is left out: {doomed['reason']}")


def run_seed(name: str, params: Params, seed: int, test: bool, cache_dir: Path) -> Run:
    """Run the stages with one seed; return what is recorded of it.

    Raises:
        ValueError: a stage failed, or an official test row was left out that is no repeat of another.

    """
    params = merge(params, {"train": {"seed": seed}}, "--seeds")
    sources = write_sources(name, seed, cache_dir / "data" / name)
    pipeline = Pipeline(params, sources, cache_dir)
    for stage in (*SPLIT_STAGES, *(TEST_STAGES if test else ())):
        pipeline.run(stage)
        if stage == "prepare":
            check_test_rows(pipeline.place_of("data/prepared/rejected.csv"), params["prepare"]["test_source"])
    found = figures(pipeline, params["prepare"]["out_of_scope_intent"] is not None, test)
    costs = {
        cost: {stage: record[cost] for stage, record in pipeline.records.items()} for cost in ("seconds", "cpu_seconds")
    }
    return {"seed": seed, **found, **costs, "machine": pipeline.records["train"]["machine"]}


def report(name: str, runs: Sequence[Run]) -> str:
    """Return the means over seeds as text."""
    lines = [f"{name}, seeds {', '.join(str(run['seed']) for run in runs)}"]
    for split in [split for split in ("validation", "test") if split in runs[0]]:
        means = [
            f"{NAMES[figure]} {per_cent([run[split][figure] for run in runs])}" for figure in shown(runs[0][split])
        ]
        lines.append(f"  {split}: {', '.join(means)}")
    return "\n".join(lines)


def check_replaced(name: str, num_seeds: int, folder: Path) -> None:
    """Raise ValueError where the results of a set are of more seeds than those that would replace them."""
    earlier = _read(folder / "results.json", {}).get(name, {"runs": []})["runs"]
    if num_seeds < len(earlier):
        raise ValueError(
            f"--seeds: {num_seeds} seed(s) would replace {name}'s results of {len(earlier)} in {folder}; run as many,"
            " or name another folder with --results"
        )


def write_results(folder: Path, results: dict[str, Any], experiments: list[dict[str, Any]]) -> None:
    """Write the figures and their tables."""
    write_json(folder / "results.json", results)
    if experiments:
        write_json(folder / "experiments.json", experiments)
    parts = [section(name, results[name]["runs"]) for name in SETS if name in results]
    tried = [experiment_table(experiments)] if experiments else []
    write_text(folder / "results.md", "\n".join([INTRODUCTION, *parts, *tried]))


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether both experiments have the same settings on the same code."""
    first, second = ((tried["set"], tried["settings"], tried["runs"][0]["machine"]["commit"]) for tried in (one, other))
    return bool(first == second)


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("-S", "--set", dest="changes", action="append", default=[], metavar="SECTION.NAME=VALUE")
    parser.add_argument("--validation-only", action="store_true", help="do not look at the test split")
    parser.add_argument("--cache", type=Path, default=CACHE_DIR, metavar="DIR")
    parser.add_argument("--results", type=Path, default=HERE, metavar="DIR")
    return parser.parse_args()


def main() -> None:
    """Run what the command line asks for, write the results after each set."""
    arguments = parse_arguments()
    unknown = [name for name in arguments.sets if name not in SETS]
    if unknown:
        raise ValueError(f"there is no set {unknown[0]!r}; there are: {', '.join(SETS)}")
    for name in arguments.sets or SETS:
        missing = missing_files(name)
        if missing:
            print(f"{name} is skipped: there is no {missing[0]} (set {DATA_VARIABLE} to the folder that has it)")
            continue
        if not (arguments.changes or arguments.validation_only):
            check_replaced(name, len(arguments.seeds), arguments.results)
        changes = settings_of(name)
        params = merge(read_params(), changes, f"{name}.yaml")
        params = merge(params, parse_changes(arguments.changes), "-S")
        runs = []
        for seed in arguments.seeds:
            test = not arguments.validation_only
            runs.append(run_seed(name, params, seed, test, arguments.cache.resolve()))
            print(report(name, runs[-1:]), flush=True)
        print(report(name, runs), flush=True)
        results = _read(arguments.results / "results.json", {})
        experiments = _read(arguments.results / "experiments.json", [])
        if arguments.changes or arguments.validation_only:
            tried = {"set": name, "settings": arguments.changes, "runs": runs}
            experiments = [*(one for one in experiments if not _is_same(one, tried)), tried]
        else:
            results[name] = {"settings": changes, "runs": runs}
        write_results(arguments.results, results, experiments)


if __name__ == "__main__":
    run(main)
