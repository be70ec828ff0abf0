"""One training of one system on one data set, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OWN = ("pipeline", "quick", "large_batches")  # the ways to train with this repository


@dataclass(frozen=True)
class Job:
    """What is trained; None where a system has no such setting."""

    system: str  # one of benchmarks.training.run.SYSTEMS
    encoder_dir: str
    data_dir: str  # holds prepared/ and tokenized/, each with train.parquet and validation.parquet
    learning_rate: float | None = None
    max_steps: int | None = None
    validation_rows: int | None = None

    def split(self, kind: str, split: str) -> Path:
        """Return where the `split` lies, prepared or tokenized."""
        return Path(self.data_dir) / kind / f"{split}.parquet"


def run_job(job: Job, threads: int) -> dict[str, Any]:
    """Return what the worker measured, and its seconds and peak memory from the start of the process to its end.

    Raises:
        ValueError: it failed.

    """
    with tempfile.TemporaryDirectory() as scratch:
        result, log = Path(scratch) / "result.json", Path(scratch) / "log.txt"
        command = [sys.executable, "-m", "benchmarks.training.worker", json.dumps(asdict(job)), str(result)]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",  # all on the CPU, whose rates are measured
        }
        started = time.perf_counter()
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
            _, status, usage = os.wait4(process.pid, 0)  # unlike Popen.wait it tells the peak memory
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if status:
            raise ValueError(f"{job.system} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    measured = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_mib": usage.ru_maxrss / 1024,
    }
    return {"job": asdict(job), **found, **measured, "load": os.getloadavg()[0]}
