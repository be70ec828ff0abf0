"""Training on a CUDA GPU: BERT-base full in bf16, BERT-large QLoRA, driver intents by default and quick.

Reports texts/s, the share of the GPU's matrix-product rate that useful operations reach (MFU: of the best rate measured
here in bf16, and of the data sheet's where the GPU is known), both in the last pass, peak memory, the seconds of the
whole training, and those to 98 % of the final accuracy.
Weights: Hub ids or local folders; with --random untrained ones of the same sizes, on which speed and memory do not
depend (the accuracies then mean nothing), for two epochs. Reads models/encoder, data/tokenized, and BANKING77 where
benchmarks/training/sets.py finds it (driver intents stand in for it elsewhere). Adds a dated section to gpu.md. Batch
sizes beside a recipe's are there for their speed: its learning rate does not suit them.

    python -m benchmarks.training.gpu
    python -m benchmarks.training.gpu --random --rows 4000 --only bert-base-full --batch-sizes 64 256
    python -m benchmarks.training.gpu --base path/to/bert-base --large path/to/bert-large
"""

import argparse
import gc
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import transformers
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoConfig, AutoModel, AutoTokenizer

from benchmarks.machine import describe
from benchmarks.training.jobs import Job
from benchmarks.training.rates import matmul_rate
from benchmarks.training.sets import DRIVER_DIR, ENCODER_DIR, find_set, sampled
from benchmarks.training.timeline import time_to_accuracy
from intents.cli import run
from intents.encoders import materialise_encoder
from intents.files import write_text
from intents.params import read_params

RESULTS_PATH = Path(__file__).with_name("gpu.md")
TITLE = "# Training on a GPU\n"
RECIPES = {"bert-base-full": "base", "bert-large-qlora": "large"}
DRIVER = "driver"
SIZES = {  # Devlin et al. 2019
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
# TFLOP/s of dense bf16 matrix products with fp32 sums, from NVIDIA's data sheets; the first that the name contains.
DATA_SHEET = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200 NVL": 835,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
COLUMNS = (
    "recipe",
    "texts a step",
    "texts/s",
    "useful tokens/s",
    "padding",
    "MFU, measured rate",
    "MFU, data sheet",
    "peak memory, GiB",
    "reserved, GiB",
    "training, s",
    "s to 98 %",
    "validation accuracy",
)


def write_random_encoder(sizes: Mapping[str, int], tokenizer_dir: Path, folder: Path) -> Path:
    """Write an untrained BERT of these sizes, with the tokenizer in `tokenizer_dir`, to `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir, trust_remote_code=False)
    vocab_size = AutoConfig.from_pretrained(tokenizer_dir, trust_remote_code=False).vocab_size
    AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=vocab_size, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(encoder_dir: Path, data_dir: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one training took; memory is None on a CPU."""
    from benchmarks.training.pipeline_system import train_pipeline  # seconds of imports, in vain without a GPU

    rows = pq.read_metadata(data_dir / "tokenized/train.parquet").num_rows
    if torch.cuda.is_available():
        gc.collect()  # the training before, whose parts refer to one another
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with _drained_every(math.ceil(rows / params["batch_size"])):
        found = train_pipeline(Job("pipeline", str(encoder_dir), str(data_dir)), params)
    allocated, reserved = (
        (torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30)
        if torch.cuda.is_available()
        else (None, None)
    )
    return found | {"batch_size": params["batch_size"], "peak_gib": allocated, "reserved_gib": reserved}


@contextmanager
def _drained_every(num_steps: int) -> Iterator[None]:
    """Wait for the GPU at the end of each pass, so that what is queued there counts as training, not as evaluation."""
    steps = itertools.count(1)

    def wait(*_: Any) -> None:
        if next(steps) % num_steps == 0 and torch.cuda.is_available():
            torch.cuda.synchronize()

    hook = register_optimizer_step_post_hook(wait)
    try:
        yield
    finally:
        hook.remove()


def recipe_params(name: str, batch_size: int | None, brief: bool = False) -> dict[str, Any]:
    """Return section `train` of params.yaml with what a recipe changes; a `batch_size` goes through in one part.

    A `brief` training has two passes, the second of which is steady.
    """
    params: dict[str, Any] = read_params()["train"] | read_params(Path("recipes") / f"{name}.yaml")["train"]
    if batch_size is not None:
        params |= {"batch_size": batch_size, "gradient_accumulation": 1}
    if brief:
        params |= {"num_epochs": 2, "min_steps": 0}
    return params


def data_sheet_rate(device: str) -> float | None:
    """Return the GFLOP/s that the data sheet of the GPU named `device` promises in bf16; None: not known here."""
    return next((1000.0 * tflops for name, tflops in DATA_SHEET.items() if name in device), None)


def row(name: str, found: Mapping[str, Any], measured_rate: float, promised_rate: float | None) -> str:
    """Return a row of the table; rates in GFLOP/s."""
    texts_per_s = found["texts_per_step"] / found["last_pass_step_s"]
    rate = texts_per_s * found["gflop_per_text"]
    soonest = time_to_accuracy(found["evaluations"], 0.98 * found["final_accuracy"], "training_s")
    memory = ["" if found[kind] is None else f"{found[kind]:.2f}" for kind in ("peak_gib", "reserved_gib")]
    cells = [
        name,
        str(found["batch_size"]),
        f"{texts_per_s:,.0f}",
        f"{texts_per_s * found['useful_tokens_per_text']:,.0f}",
        f"{found['padding_share']:.1%}",
        f"{rate / measured_rate:.1%}",
        "" if promised_rate is None else f"{rate / promised_rate:.1%}",
        *memory,
        f"{found['fine_tune_s']:.1f}",
        "" if soonest is None else f"{soonest:.1f}",
        f"{found['final_accuracy']:.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def encoder_of(name: str, options: argparse.Namespace, scratch: Path) -> Path:
    """Return the folder of the encoder that a recipe starts from."""
    size = RECIPES[name]
    if options.random:
        return write_random_encoder(SIZES[size], ENCODER_DIR, scratch / size)
    recipe = read_params(Path("recipes") / f"{name}.yaml")["encoder"]
    given = getattr(options, size)
    source, revision = (given, None) if given else (recipe["name"], recipe["revision"])
    materialise_encoder(source, revision, scratch / size)
    given, known = (
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False).get_vocab()
        for folder in (scratch / size, ENCODER_DIR)
    )
    if given != known:
        raise ValueError(f"--{size}: {source} has other tokens than {ENCODER_DIR}, by which the texts are tokenized")
    return scratch / size


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [DRIVER, *RECIPES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--random", action="store_true", help="untrained weights of the same sizes")
    parser.add_argument("--base", help="folder with BERT-base (default: the Hub id in recipes/bert-base-full.yaml)")
    parser.add_argument("--large", help="folder with BERT-large (default: the Hub id in recipes/bert-large-qlora.yaml)")
    parser.add_argument("--rows", type=int, help="texts of BANKING77 to train on (default: all)")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[64, 256, 1024, 2048], help="beside that of each recipe"
    )
    return parser.parse_args()


def table_head(device: str, measured_rate: float, texts: str, random: bool) -> list[str]:
    """Return the lines above the rows."""
    machine = describe()
    return [
        f"## {machine['date']}, {device}, commit {machine['commit']}",
        "",
        f"bf16 matrix products, 8192 wide: {measured_rate / 1000:.0f} TFLOP/s. {texts}; torch {torch.__version__}."
        + (" Untrained weights: the accuracies mean nothing." if random else ""),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    ]


def trainings(options: argparse.Namespace, data_dir: Path, scratch: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each training and what was measured."""
    from benchmarks.training.pipeline_system import CHANGES  # seconds of imports, in vain without a GPU

    for name in options.only:
        if name == DRIVER:
            for system, called in (("pipeline", "default"), ("quick", "quick")):
                params = read_params()["train"] | CHANGES[system]
                yield f"{called}, {DRIVER} intents", measure(ENCODER_DIR, DRIVER_DIR, params)
            continue
        encoder_dir = encoder_of(name, options, scratch)
        for batch_size in (None, *options.batch_sizes):
            yield name, measure(encoder_dir, data_dir, recipe_params(name, batch_size, options.random))


def main() -> None:
    """Measure everything, write the table."""
    options = parse()
    if not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device here; a CPU is measured by: python -m benchmarks.training.run")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = torch.cuda.get_device_name()
    rates = matmul_rate(torch.bfloat16, size=8192, device="cuda"), data_sheet_rate(device)
    data_dir, texts = find_set("banking77"), "BANKING77"
    if isinstance(data_dir, str):
        print(f"{data_dir}; driver intents stand in for it", flush=True)
        data_dir, texts = DRIVER_DIR, "Driver intents"
    earlier = RESULTS_PATH.read_text(encoding="utf-8").removeprefix(TITLE) if RESULTS_PATH.exists() else ""
    with tempfile.TemporaryDirectory() as scratch:
        if options.rows:
            data_dir = sampled(data_dir, {"train": options.rows, "validation": options.rows}, Path(scratch) / "data")
            texts += f", {options.rows:,} of the training texts"
        lines = table_head(device, rates[0], texts, options.random)
        for name, found in trainings(options, data_dir, Path(scratch)):
            lines.append(row(name, found, *rates))
            print(lines[-1], flush=True)
            table = "\n".join(lines) + "\n"
            write_text(RESULTS_PATH, f"{TITLE}\n{table}{earlier}")  # the next one may need more memory than there is


if __name__ == "__main__":
    run(main)
