"""What make runs."""

import os
import subprocess

from tests.conftest import REPOSITORY


def test_a_sweep_queues_its_seeds_runs_them_and_compares():
    ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    settings = ["N=3", "JOBS=2", "SET=-S train.learning_rate=1e-4"]
    command = ["make", "--dry-run", "--old-file=.venv/installed", "sweep-seeds", *settings]
    done = subprocess.run(command, cwd=REPOSITORY, env=ours, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "dvc exp run --queue -S 'train.seed=range(0,3)' -S train.learning_rate=1e-4",
        "dvc exp run --run-all -j 2",
        "python -m apps.compare --strict",
    ]
