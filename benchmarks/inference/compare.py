"""apps.predict against transformers.pipeline: the same rows, checkpoint and machine, in one run.

    python -m benchmarks.inference.compare --rows 3000

Each contender's loading and first answers are outside its time. Contenders take turns, `--rounds` times; the best
round of each counts, so that other load on the machine weighs on none of them alone. The table is put before the
earlier ones in benchmarks/inference/speed.md.
"""

import argparse
import csv
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import add_section, describe
from intents.cli import run

Answer = Callable[[list[str]], list[str]]
RESULTS_PATH = Path(__file__).with_name("speed.md")
DEFAULT, BATCHED = "pipeline, default", "pipeline, batch_size=32"
_HEADER = "| | texts/s | x default | x batch_size=32 | CPU ms/text | same as default |\n|---|---|---|---|---|---|"


def read_texts(source: str, rows: int) -> list[str]:
    """Return `rows` distinct texts, spread over the file."""
    with open(source, encoding="utf-8", newline="") as file:
        texts = list(dict.fromkeys(row["text"] for row in csv.DictReader(file)))
    if len(texts) < rows:
        raise ValueError(f"--rows {rows}: {source} has {len(texts)} distinct texts")
    return [texts[index * len(texts) // rows] for index in range(rows)]


def ours(folder: str, variant: str, threads: int) -> Answer:
    """Return what apps.predict does with a table's windows."""
    from intents.bulk.loading import load_scorer
    from intents.bulk.rows import WINDOW_ROWS
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
    transformers.utils.logging.disable_progress_bar()
    classify = transformers.pipeline("text-classification", model=folder, device="cpu")
    batches = {} if batch_size is None else {"batch_size": batch_size}
    return lambda texts: [found["label"] for found in classify(texts, truncation=True, **batches)]


def take_turns(contenders: dict[str, Answer], texts: list[str], rounds: int) -> str:
    """Return the table."""
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    answers: dict[str, list[str]] = {}
    for answer in contenders.values():
        answer(texts[:64])
    for _ in range(rounds):
        for name, answer in contenders.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            answers[name] = answer(texts)
            cpu[name] = min(cpu.get(name, float("inf")), time.process_time() - cpu_started)
            seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - started)
    lines = [_HEADER]
    for name, taken in seconds.items():
        same = sum(a == b for a, b in zip(answers[name], answers[DEFAULT], strict=True)) / len(texts)
        ratios = " | ".join(f"{seconds[other] / taken:.1f}" for other in (DEFAULT, BATCHED))
        cpu_ms = 1000 * cpu[name] / len(texts)
        lines.append(f"| {name} | {len(texts) / taken:.0f} | {ratios} | {cpu_ms:.2f} | {same:.2%} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and note."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--onnx", default="models/onnx")
    parser.add_argument("--checkpoint", default="models/classifier")
    parser.add_argument("--source", default="data/raw/driver_intents.csv")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--print-only", action="store_true", help="to see that it runs; nothing is written")
    options = parser.parse_args()
    import torch

    threads = options.threads
    torch.set_num_threads(threads)
    texts = read_texts(options.source, options.rows)
    contenders = {
        DEFAULT: pipeline(options.checkpoint, None),
        BATCHED: pipeline(options.checkpoint, 32),
        "apps.predict, PyTorch": ours(options.checkpoint, "fp32", threads),
        "apps.predict, ONNX fp32": ours(options.onnx, "fp32", threads),
        "apps.predict, ONNX int8": ours(options.onnx, "int8", threads),
    }
    facts = describe() | {"threads": threads, "load": f"{os.getloadavg()[0]:.1f}"}
    table = take_turns(contenders, texts, options.rounds)
    facts |= {
        "load": f"{facts['load']} to {os.getloadavg()[0]:.1f}",
        **{name: version(name) for name in ("torch", "transformers", "onnxruntime")},
        "texts": f"{len(texts)} of {options.source}",
        "rounds": options.rounds,
    }
    print(table)
    if not options.print_only:
        add_section(RESULTS_PATH, facts, table)
        print(f"{RESULTS_PATH} has the table")


if __name__ == "__main__":
    run(main)
