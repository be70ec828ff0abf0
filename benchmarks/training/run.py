"""Speed of training: the same data and starting weights through all systems, one after the other on one machine.

- notebook: the recipe of the 2023 notebook (padded to 512 tokens, 8 texts a step, fp32, an evaluation and a checkpoint
  every 10 steps). So slow that only --notebook-steps of them are run; its end-to-end rate is extrapolated.
- trainer: transformers' Trainer with dynamic padding, 32 texts a step, fp32, an evaluation per epoch, its defaults
  otherwise. All --learning-rates are tried; the one with the best final accuracy on validation counts.
- setfit: SetFit (Tunstall et al. 2022), its defaults, for --setfit-steps steps of 16 pairs of texts. All
  --setfit-learning-rates are tried; the one that is sooner at the target counts.
  Needs pip install -c constraints.txt -e '.[benchmark]'.
- pipeline: this repository, section `train` of params.yaml.
- quick: the same without adversarial training; large_batches: that with 128 texts a step and a higher rate.

Each training has a process of its own. Before and after each the machine's matrix-product rate is measured; the highest
counts. Reads models/encoder, data/prepared, data/tokenized, and BANKING77 where benchmarks/training/sets.py finds it;
the test splits are not used. Writes results.json and adds a dated section to results.md, beside this file.

    python -m benchmarks.training.run                                    all of it: about two hours on 2 cores
    python -m benchmarks.training.run --only pipeline trainer --data driver
    python -m benchmarks.training.run --quick                            a few rows and steps; writes nothing
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.training import startup
from benchmarks.training.jobs import OWN, Job, run_job
from benchmarks.training.report import section
from benchmarks.training.sets import ENCODER_DIR, NAMES, find_set, sampled
from intents.cli import run
from intents.files import write_json, write_text

SYSTEMS = (*OWN, "trainer", "setfit", "notebook")
RESULTS_PATH = Path(__file__).with_name("results.md")
TITLE = "# Speed of training\n"
QUICK_ROWS = {"train": 192, "validation": 64}


def jobs_of(system: str, data_dir: Path, options: argparse.Namespace) -> list[Job]:
    """Return the trainings of a system on one data set."""
    job = Job(system, str(ENCODER_DIR), str(data_dir))
    if system == "trainer":
        return [replace(job, learning_rate=rate) for rate in options.learning_rates]
    if system == "setfit":
        return [
            replace(job, learning_rate=rate, max_steps=options.setfit_steps) for rate in options.setfit_learning_rates
        ]
    if system == "notebook":
        return [replace(job, max_steps=options.notebook_steps, validation_rows=options.notebook_validation_rows)]
    return [job]


def measure_rates(threads: int) -> dict[str, float]:
    """Return the machine's GFLOP/s of matrix products by precision, from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.training.rates"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


def measure_set(data_dir: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run all systems on one data set; return their trainings and the machine's rates around them."""
    rates, trainings = [measure_rates(options.threads)], []
    for system in options.only:
        for job in jobs_of(system, data_dir, options):
            trainings.append(run_job(job, options.threads))
            rates.append(measure_rates(options.threads))
            print(summary(trainings[-1]), flush=True)
    return {"rates": rates, "trainings": trainings}


def summary(training: dict[str, Any]) -> str:
    """Return one line about a training."""
    job, rate = training["job"], training["texts_per_step"] / training["steady_step_s"]
    setting = "" if job["learning_rate"] is None else f", learning rate {job['learning_rate']:g}"
    return (
        f"{job['system']}{setting}: {rate:.1f} texts/s, {training['seconds']:.0f} s,"
        f" validation accuracy {training['final_accuracy']}"
    )


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the figures were measured on."""
    packages = ("torch", "transformers", "sentence-transformers", "setfit")
    versions = {name: version(name) for name in packages if find_spec(name.replace("-", "_"))}
    return {**describe(), "threads": options.threads, "load_before": round(os.getloadavg()[0], 1), **versions}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--data", nargs="+", choices=NAMES, default=list(NAMES), metavar="SET")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[5e-5, 1e-4, 3e-4])
    parser.add_argument("--setfit-learning-rates", type=float, nargs="+", default=[2e-5, 1e-4])
    parser.add_argument("--setfit-steps", type=int, default=1000)
    parser.add_argument("--notebook-steps", type=int, default=12)
    parser.add_argument("--notebook-validation-rows", type=int, default=40)
    parser.add_argument("--startups", type=int, default=3, help="times that python -m stages.train is started")
    parser.add_argument("--quick", action="store_true", help="192 training rows, a few steps; writes nothing")
    options = parser.parse_args(arguments)
    if options.quick:
        options.learning_rates, options.setfit_learning_rates = (
            options.learning_rates[-1:],
            options.setfit_learning_rates[-1:],
        )
        options.setfit_steps, options.notebook_steps, options.notebook_validation_rows, options.startups = 8, 3, 8, 1
    return options


def main() -> None:
    """Measure everything, write the results."""
    options = parse()
    if "setfit" in options.only and not find_spec("setfit"):
        print("setfit is skipped: it is not installed, pip install -c constraints.txt -e '.[benchmark]'", flush=True)
        options.only.remove("setfit")
    if not options.only:
        return
    results: dict[str, Any] = {"conditions": conditions(options), "sets": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.data:
            data_dir = find_set(name)
            if isinstance(data_dir, str):
                print(data_dir, flush=True)
                continue
            print(f"== {name}", flush=True)
            if options.quick:
                data_dir = sampled(data_dir, QUICK_ROWS, Path(scratch) / name)
            results["sets"][name] = measure_set(data_dir, options)
            if not options.quick:
                write_json(RESULTS_PATH.with_suffix(".json"), results)
        if "pipeline" in options.only and "driver" in options.data:
            results["startup_s"] = [startup.measure() for _ in range(options.startups)]
    if not results["sets"]:
        return
    table = section(results)
    print(f"\n{table}")
    if not options.quick:
        earlier = RESULTS_PATH.read_text(encoding="utf-8").removeprefix(TITLE) if RESULTS_PATH.exists() else ""
        write_json(RESULTS_PATH.with_suffix(".json"), results)
        write_text(RESULTS_PATH, f"{TITLE}\n{table}{earlier}")


if __name__ == "__main__":
    run(main)
