"""Latency, cold start, memory and size of PyTorch, ONNX fp32 and ONNX int8, one text at a time.

    python -m benchmarks.board.run --threads 1 2 4

Every figure comes from a fresh process on the texts of data/prepared/validation.parquet. The result is put on top
of benchmarks/board/results.md, with the machine, its load and the commit, and beside it as results.json.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.board.probe import VARIANTS
from intents.cli import run
from intents.files import write_json, write_text

TEXTS_PATH = Path("data/prepared/validation.parquet")
RESULTS_PATH = Path(__file__).with_name("results.md")
FILES = {
    "pytorch": Path("models/classifier/model.safetensors"),
    "fp32": Path("models/onnx/model.onnx"),
    "int8": Path("models/onnx/model-int8.onnx"),
}
_COLUMNS = ("variant", "threads", "p50_ms", "p95_ms", "p99_ms", "cold_start_s", "peak_rss_mb", "file_mb")


def probe(variant: str, threads: int, texts_path: Path, *options: str) -> dict[str, Any]:
    """Return what a fresh process measured, and its whole time, the interpreter's start included."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.board.probe",
        variant,
        "--threads",
        str(threads),
        "--texts",
        str(texts_path),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    begun = time.perf_counter()
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise ValueError(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["process_s"] = time.perf_counter() - begun
    return found


def measure(variant: str, threads: int, texts_path: Path, passes: int) -> dict[str, Any]:
    """Return one row of the table; the cold start is the median of 5 processes that end after one answer."""
    cold = [probe(variant, threads, texts_path, "--cold-only")["process_s"] for _ in range(5)]
    found = probe(variant, threads, texts_path, "--passes", str(passes))
    p50, p95, p99 = np.percentile(found["latencies_ms"], [50, 95, 99])
    return {
        "variant": variant,
        "threads": threads,
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "p99_ms": round(float(p99), 2),
        "cold_start_s": round(float(np.median(cold)), 2),
        "peak_rss_mb": round(found["peak_rss_mb"]),
        "file_mb": round(FILES[variant].stat().st_size / 1e6, 1),
    }


def conditions(num_texts: int) -> dict[str, Any]:
    """Return date, hardware, load, versions and commit."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": git.stdout.strip() or "unknown",
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "vnni": any("avx512_vnni" in line or "avx_vnni" in line for line in lines),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "onnxruntime", "tokenizers")},
        "texts": num_texts,
    }


def to_markdown(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return one dated section of results.md."""
    about = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("date", "commit"))
    lines = [f"## {facts['date']}, commit {facts['commit']}", "", about, ""]
    lines += ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(str(row[name]) for name in _COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    for path in (TEXTS_PATH, *FILES.values()):
        if not path.exists():
            raise ValueError(f"{path} is missing: run `dvc repro export`, or `dvc pull`")
    texts = [" ".join(text.split()) for text in pq.read_table(TEXTS_PATH).column("text").to_pylist()]
    facts, rows = conditions(len(texts)), []
    with tempfile.TemporaryDirectory() as scratch:
        texts_path = Path(scratch) / "texts.txt"
        texts_path.write_text("\n".join(texts), encoding="utf-8")
        for threads in options.threads:
            for variant in options.variants:
                rows.append(measure(variant, threads, texts_path, options.passes))
                print(rows[-1], flush=True)
    facts["load"] = f"{facts['load']} to {os.getloadavg()[0]:.1f}"
    title, before = "# Board: one text at a time\n", ""
    if RESULTS_PATH.is_file():
        before = RESULTS_PATH.read_text(encoding="utf-8").removeprefix(title)
    write_text(RESULTS_PATH, f"{title}\n{to_markdown(facts, rows)}{before}")
    write_json(RESULTS_PATH.with_suffix(".json"), {"conditions": facts, "rows": rows})
    print(f"{RESULTS_PATH} has the table")


if __name__ == "__main__":
    run(main)
