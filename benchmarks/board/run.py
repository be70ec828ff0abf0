"""Latency, cold start, memory and size of PyTorch, ONNX fp32 and ONNX int8, one text at a time.

    python -m benchmarks.board.run --threads 1 2 4

Every figure comes from a fresh process on the texts of data/prepared/validation.parquet. The result is put before the
earlier ones in benchmarks/board/results.md, with the machine, its load and the commit, and beside it as results.json.
"""

import argparse
import json
import os
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
from benchmarks.machine import add_section, describe
from intents.cli import run
from intents.files import write_json

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
    """Return date, commit, hardware, load and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return {
        **describe(),
        "VNNI": "avx512_vnni" in flags or "avx_vnni" in flags,
        "load": f"{os.getloadavg()[0]:.1f}",
        **{name: version(name) for name in ("torch", "onnxruntime", "tokenizers")},
        "texts": num_texts,
    }


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(str(row[name]) for name in _COLUMNS) + " |" for row in rows])


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--passes", type=int, default=3, help="answers to each text; the quickest counts")
    parser.add_argument("--texts", type=int, help="take only so many, to see that it runs; nothing is written")
    options = parser.parse_args()
    for path in (TEXTS_PATH, *FILES.values()):
        if not path.exists():
            raise ValueError(f"{path} is missing: run `dvc repro export`, or `dvc pull`")
    texts = [" ".join(text.split()) for text in pq.read_table(TEXTS_PATH).column("text").to_pylist()][: options.texts]
    facts, rows = conditions(len(texts)), []
    with tempfile.TemporaryDirectory() as scratch:
        texts_path = Path(scratch) / "texts.txt"
        texts_path.write_text("\n".join(texts), encoding="utf-8")
        for threads in options.threads:
            for variant in options.variants:
                rows.append(measure(variant, threads, texts_path, options.passes))
                print(rows[-1], flush=True)
    facts["load"] += f" to {os.getloadavg()[0]:.1f}"
    if options.texts is None:
        add_section(RESULTS_PATH, facts, to_markdown(rows))
        if options.variants == list(VARIANTS):
            write_json(RESULTS_PATH.with_suffix(".json"), {"conditions": facts, "rows": rows})
        print(f"{RESULTS_PATH} has the table")


if __name__ == "__main__":
    run(main)
