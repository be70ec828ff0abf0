"""Peak memory of apps.predict for tables of growing length: flat, if it streams.

    python -m benchmarks.inference.memory --rows 100000 300000

The table is put before the earlier ones in benchmarks/inference/memory.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import add_section, describe
from intents.cli import run

RESULTS_PATH = Path(__file__).with_name("memory.md")
WORDS = "open close my the window door please turn on off light music seat it now is cold warm".split()
_GOAL_ROWS = 10_000_000


def write_texts(path: Path, rows: int) -> None:
    """Write a CSV file of texts of 2 to 20 words and a number."""
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for row in range(rows):
            words = [WORDS[(row * 7 + word * word) % len(WORDS)] for word in range(2 + row % 19)]
            file.write(f"{row},{' '.join(words)} {row}\n")


def measure(model: str, rows: int, suffix: str) -> tuple[float, float]:
    """Return the peak resident memory in MiB and the seconds of answering a table of `rows` texts."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.csv"), Path(folder, f"out.{suffix}")
        write_texts(source, rows)
        line = [sys.executable, "-m", "apps.predict", str(source), str(target), "--model", model]
        started = time.perf_counter()
        process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        errors = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise ValueError(f"{' '.join(line)} failed:\n{errors}")
        return usage.ru_maxrss / 1024, time.perf_counter() - started


def main() -> None:
    """Measure, print and note."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="models/onnx")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000], help="from few to many")
    parser.add_argument("--suffix", default="csv", choices=("csv", "jsonl", "parquet"), help="of the output")
    parser.add_argument("--print-only", action="store_true", help="to see that it runs; nothing is written")
    options = parser.parse_args()
    facts = describe() | {"onnxruntime": version("onnxruntime"), "model": options.model, "output": options.suffix}
    lines, peaks = ["| rows | peak, MiB | rows/s |", "|---|---|---|"], []
    for rows in options.rows:
        peak, seconds = measure(options.model, rows, options.suffix)
        peaks.append(peak)
        lines.append(f"| {rows:,} | {peak:.0f} | {rows / seconds:.0f} |")
        print(lines[-1], flush=True)
    if len(peaks) > 1:
        growth = (peaks[-1] - peaks[0]) / (options.rows[-1] - options.rows[0])
        expected = peaks[-1] + growth * (_GOAL_ROWS - options.rows[-1])
        lines += ["", f"At this growth {_GOAL_ROWS:,} rows would take {expected:.0f} MiB; the goal is 1024."]
        print(lines[-1])
    if not options.print_only:
        add_section(RESULTS_PATH, facts, "\n".join(lines))
        print(f"{RESULTS_PATH} has the table")


if __name__ == "__main__":
    run(main)
