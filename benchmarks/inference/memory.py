"""Peak memory of apps.predict for tables of growing length: flat, if it streams.

python -m benchmarks.inference.memory --model FOLDER [--rows 100000 300000]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = "open close my the window door please turn on off light music seat it now is cold warm".split()


def write_texts(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for row in range(rows):
            words = [WORDS[(row * 7 + word * word) % len(WORDS)] for word in range(2 + row % 19)]
            file.write(f"{row},{' '.join(words)} {row}\n")


def peak_mib(model: str, rows: int, suffix: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.csv"), Path(folder, f"out.{suffix}")
        write_texts(source, rows)
        line = [sys.executable, "-m", "apps.predict", str(source), str(target), "--model", model]
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise ValueError(f"{' '.join(line)} failed")
        return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000])
    parser.add_argument("--suffix", default="csv")
    options = parser.parse_args()
    for rows in options.rows:
        print(f"| {rows:,} | {peak_mib(options.model, rows, options.suffix):.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
