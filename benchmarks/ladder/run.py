"""The ladder from the majority answer over LoRA to full fine-tuning, on the same splits, with its cost in seconds.

Runs an experiment (`dvc exp run --temp`) for each fine-tuned rung and seed, or takes the one of that name if there is
one, and appends a dated table to benchmarks/ladder/results.md. Commit first: experiments start from HEAD.

    python -m benchmarks.ladder.run [SEED ...]
"""

import argparse
import csv
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dvc.api

from benchmarks.machine import describe

RESULTS_PATH = Path(__file__).with_name("results.md")
# The other settings are those of params.yaml. Adapters learn at higher rates.
RUNGS = {
    "lora": ("train.method=lora", "train.learning_rate=1e-3"),
    "full": ("train.method=full",),
}
Row = dict[str, str]


def experiments() -> list[str]:
    """Return the names of HEAD's experiments."""
    done = subprocess.run(["dvc", "exp", "list", "--name-only"], check=True, capture_output=True, text=True)
    return done.stdout.split()


def experiment(rung: str, seed: str) -> str:
    """Return the revision of a rung and seed, which has run when this returns."""
    name = f"ladder-{rung}-{seed}"
    if name not in experiments():
        settings = [part for setting in (*RUNGS[rung], f"train.seed={seed}") for part in ("-S", setting)]
        subprocess.run(["dvc", "exp", "run", "--temp", "-n", name, *settings], check=True)
    return name if name in experiments() else "HEAD"  # DVC makes no experiment where nothing differs from HEAD


def rungs_of(revision: str) -> dict[str, Row]:
    """Return the ladder in the evaluation of a revision by rung."""
    table = dvc.api.read("metrics/tables/ladder.csv", rev=revision)
    return {row["rung"]: row for row in csv.DictReader(io.StringIO(table))}


def training_seconds(revision: str) -> float:
    """Return how long a revision trained, its passes over validation aside."""
    metrics = {
        part: json.loads(dvc.api.read(f"metrics/{part}.json", rev=revision))
        for part in ("train", "prepare", "tokenize")
    }
    num_epochs = len(dvc.api.read("metrics/plots/training.csv", rev=revision).splitlines()) - 1
    num_texts = metrics["prepare"]["rows"]["train"] + metrics["tokenize"]["mistyped"]
    return num_epochs * metrics["train"]["passes_per_epoch"] * num_texts / metrics["train"]["examples_per_second"]


def ladder(seeds: list[str]) -> Iterator[tuple[str, Row, float]]:
    """Yield each rung's name, scores and seconds, the lowest first."""
    revisions = {f"{rung}, seed {seed}": experiment(rung, seed) for rung in RUNGS for seed in seeds}
    first = next(iter(revisions.values()))
    costs = json.loads(dvc.api.read("metrics/baselines.json", rev=first))
    for rung, row in rungs_of(first).items():
        if rung in costs:
            yield rung, row, costs[rung]["seconds"]
    for rung, revision in revisions.items():
        yield rung, rungs_of(revision)["fine_tuned"], training_seconds(revision)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seeds", nargs="*", type=int, metavar="SEED", help="default: 0")
    seeds = [str(seed) for seed in parser.parse_args().seeds or [0]]
    machine = describe()
    lines = [
        f"\n## {machine['date']}, commit {machine['commit']}\n",
        f"{machine['processor']}, Python {machine['python']}\n",
        "| rung | accuracy | 95 % interval | macro-F1 | 95 % interval | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for rung, row, seconds in ladder(seeds):
        intervals = [f"{row[f'{name}_low']} to {row[f'{name}_high']}" for name in ("accuracy", "macro_f1")]
        lines.append(
            f"| {rung} | {row['accuracy']} | {intervals[0]} | {row['macro_f1']} | {intervals[1]} | {seconds:.0f} |"
        )
    with RESULTS_PATH.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
