"""apps.predict against transformers.pipeline: the same rows, checkpoint and machine, in one run.

    python -m benchmarks.inference.compare --onnx models/onnx --checkpoint models/classifier [--rows 1500]

Each contender's loading and first answers are outside its time. Contenders take turns, `--rounds` times; the best
round of each counts, so that other load on the machine weighs on none of them alone.
"""

import argparse
import csv
import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

Answer = Callable[[list[str]], list[str]]


def read_texts(source: str, rows: int) -> list[str]:
    """Return `rows` distinct texts, spread over the file."""
    with open(source, encoding="utf-8", newline="") as file:
        texts = list(dict.fromkeys(row["text"] for row in csv.DictReader(file)))
    step = max(1, len(texts) // rows)
    return texts[::step][:rows]


def ours(folder: str, variant: str, threads: int) -> Answer:
    """Return what apps.predict does with a table's windows."""
    from intents.bulk.rows import WINDOW_ROWS
    from intents.bulk.scoring import load_scorer
    from intents.calibrations import Calibration
    from intents.deciding import decide

    scorer = load_scorer(Path(folder), variant, threads)

    def answer(texts: list[str]) -> list[str]:
        found: list[str] = []
        for start in range(0, len(texts), WINDOW_ROWS):
            probabilities = scorer.probabilities(texts[start : start + WINDOW_ROWS])
            found += decide(probabilities, scorer.intents, Calibration())[0]  # the pipeline knows no thresholds
        return found

    return answer


def pipeline(folder: str, batch_size: int | None) -> Answer:
    """Return transformers' own way; None is its default."""
    import transformers

    import intents  # noqa: F401 (registers the architecture)

    transformers.utils.logging.set_verbosity_error()
    classify = transformers.pipeline("text-classification", model=folder, device="cpu")
    batches = {} if batch_size is None else {"batch_size": batch_size}
    return lambda texts: [found["label"] for found in classify(texts, truncation=True, **batches)]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--source", default="data/raw/driver_intents.csv")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch

    threads = options.threads
    torch.set_num_threads(threads)
    contenders = {
        "pipeline, default": pipeline(options.checkpoint, None),
        "pipeline, batch_size=32": pipeline(options.checkpoint, 32),
        "apps.predict, PyTorch": ours(options.checkpoint, "fp32", threads),
        "apps.predict, ONNX fp32": ours(options.onnx, "fp32", threads),
        "apps.predict, ONNX int8": ours(options.onnx, "int8", threads),
    }
    texts = read_texts(options.source, options.rows)
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    answers: dict[str, list[str]] = {}
    for answer in contenders.values():
        answer(texts[:64])
    for _ in range(options.rounds):
        for name, answer in contenders.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            answers[name] = answer(texts)
            cpu[name] = min(cpu.get(name, float("inf")), time.process_time() - cpu_started)
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - started)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    print(f"{datetime.date.today()}, {processor()}, {threads} threads, load {os.getloadavg()[0]:.1f}, commit {commit};")
    print(f"{len(texts)} distinct texts of {options.source}, best of {options.rounds} rounds\n")
    print(
        "| | texts/s | x default | x batch_size=32 | CPU ms/text | same answers as default |\n|---|---|---|---|---|---|"
    )
    default, batched = seconds["pipeline, default"], seconds["pipeline, batch_size=32"]
    for name, taken in seconds.items():
        same = sum(a == b for a, b in zip(answers[name], answers["pipeline, default"], strict=True)) / len(texts)
        cpu_ms = 1000 * cpu[name] / len(texts)
        rates = f"{len(texts) / taken:.0f} | {default / taken:.1f} | {batched / taken:.1f} | {cpu_ms:.2f} | {same:.2%}"
        print(f"| {name} | {rates} |")


if __name__ == "__main__":
    main()
