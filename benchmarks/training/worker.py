"""Trains one system and writes what it took: the process that benchmarks.training.run starts for each."""

import json
import sys
from typing import Any

import transformers

from benchmarks.training.jobs import OWN, Job


def train(job: Job) -> dict[str, Any]:
    """Return what the job's system measured; only what that one needs is imported."""
    if job.system == "setfit":
        from benchmarks.training.setfit_system import setfit

        return setfit(job)
    if job.system in OWN:
        from benchmarks.training.pipeline_system import pipeline

        return pipeline(job)
    from benchmarks.training import stock_systems

    return {"notebook": stock_systems.notebook, "trainer": stock_systems.dynamic_padding}[job.system](job)


def main() -> None:
    """Do the job in the first argument, write what was measured to the file that the second names."""
    job = Job(**json.loads(sys.argv[1]))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    found = train(job)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
