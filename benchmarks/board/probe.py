"""One classifier in a fresh process: prints its cold start, latencies and peak memory as one JSON line.

    python -m benchmarks.board.probe int8 --threads 1 --texts data/prepared/validation.txt

Only the standard library is imported before the clock starts, and after it what the variant itself needs.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

VARIANTS = ("pytorch", "fp32", "int8")
CLASSIFIER_DIR = "models/classifier"
ONNX_DIR = "models/onnx"


def open_pytorch(threads: int) -> Callable[[str], object]:
    """Return the trained checkpoint as a function of one text."""
    import torch
    from transformers import AutoTokenizer

    from intents.classifier import load_classifier

    torch.set_num_threads(threads)
    model = load_classifier(Path(CLASSIFIER_DIR))
    tokenizer = AutoTokenizer.from_pretrained(CLASSIFIER_DIR)

    def answer(text: str) -> object:
        with torch.inference_mode():
            encoded = tokenizer(text, truncation=True, padding=False, return_tensors="pt")
            output = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
            return output.logits.argmax().item()

    return answer


def open_onnx(variant: str, threads: int, arena: bool, cache_dir: str | None) -> Callable[[str], object]:
    """Return an exported variant as a function of one text."""
    from intents.runtime import IntentClassifier

    classifier = IntentClassifier.load(ONNX_DIR, variant, num_threads=threads, arena=arena, cache_dir=cache_dir)
    return lambda text: classifier.predict([text])


def main() -> None:
    """Measure and print."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=Path, required=True, help="file with a text per line")
    parser.add_argument("--passes", type=int, default=2, help="answers to each text; the quickest counts")
    parser.add_argument("--no-arena", action="store_true")
    parser.add_argument("--cache-dir")
    parser.add_argument("--cold-only", action="store_true", help="stop after the first answer")
    options = parser.parse_args()
    texts = options.texts.read_text(encoding="utf-8").splitlines()
    if options.variant == "pytorch":
        answer = open_pytorch(options.threads)
    else:
        answer = open_onnx(options.variant, options.threads, not options.no_arena, options.cache_dir)
    answer(texts[0])
    measured: dict[str, object] = {"first_answer_s": time.perf_counter() - started}
    if not options.cold_only:
        measured["latencies_ms"] = measure(answer, texts, options.passes)
    print(json.dumps(measured | {"peak_rss_mb": peak_bytes() / 1e6}))


def peak_bytes() -> int:
    """Return the most memory that this process has had resident; what started it does not count."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure begins, on Linux, with that of the process that started this one
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(answer: Callable[[str], object], texts: list[str], passes: int) -> list[float]:
    """Return milliseconds for each text, tokenising included: the quickest of `passes` answers.

    The quickest, since what other programs take from the machine is no property of the classifier.
    """
    for text in texts[:20]:
        answer(text)
    quickest = [float("inf")] * len(texts)
    for _ in range(passes):
        for row, text in enumerate(texts):
            begun = time.perf_counter()
            answer(text)
            quickest[row] = min(quickest[row], 1000 * (time.perf_counter() - begun))
    return quickest


if __name__ == "__main__":
    main()
