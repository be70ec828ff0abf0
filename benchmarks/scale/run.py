"""A million short texts through prepare and tokenize: seconds and peak memory of each stage.

The texts are made here: utterances of the driver-intent set with half of their words exchanged at random. Runs the real
stages in a scratch folder, writes benchmarks/scale/results.json.

    python -m benchmarks.scale.run [ROWS]
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.machine import describe

SOURCE = Path("data/raw/driver_intents.csv")
RESULTS_PATH = Path(__file__).with_name("results.json")
A_MILLION = 1_000_000


def write_rows(path: Path, num_rows: int) -> None:
    """Write `num_rows` made-up rows; each keeps its intent and half of its words."""
    with SOURCE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    words = [word for row in rows for word in row["text"].split()]
    chance = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "intent"])
        for _ in range(num_rows):
            row = chance.choice(rows)
            text = row["text"].split()
            for _ in range(max(1, len(text) // 2)):
                text[chance.randrange(len(text))] = chance.choice(words)
            writer.writerow([" ".join(text), row["intent"]])


def measure(stage: str, folder: Path) -> dict[str, float]:
    """Run a stage in `folder`; return its seconds and its peak memory in GiB."""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"stages.{stage} failed")
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Make the rows, run the stages, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="?", type=int, default=A_MILLION, help="of another number nothing is written")
    num_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_rows(folder / "rows.csv", num_rows)
        (folder / "data").mkdir()
        shutil.copytree("models/encoder", folder / "models/encoder")
        params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        params["prepare"] |= {"source": "rows.csv", "exclude_intents": [], "conflicts": "drop"}
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        stages = {stage: measure(stage, folder) for stage in ("prepare", "tokenize")}
        metrics = json.loads((folder / "metrics/prepare.json").read_text(encoding="utf-8"))
        del metrics["rows_per_intent"]
    results = {**describe(), "rows": num_rows, **stages, "prepared": metrics}
    if num_rows == A_MILLION:
        RESULTS_PATH.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
