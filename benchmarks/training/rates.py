"""The rate at which this machine multiplies matrices: what "share of the measured rate" refers to.

python -m benchmarks.training.rates      prints GFLOP/s as JSON
"""

import json
import time
from typing import Any

import torch

from intents.precision import has_bfloat16

SIZE = 2048
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matmul_rate(dtype: torch.dtype, size: int = SIZE, seconds: float = 2.0, device: str = "cpu") -> float:
    """Return the GFLOP/s of the fastest of the products of two `size` x `size` matrices that `seconds` allow."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    per_call = 1 if device == "cpu" else 20  # a GPU's product is shorter than the call that starts it
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline or best == float("inf"):
        started = time.perf_counter()
        for _ in range(per_call):
            torch.matmul(left, right)
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / per_call)
    return 2 * size**3 / best / 1e9


def main() -> None:
    """Measure every precision that this machine has."""
    # Without instructions for it, a product of bf16 takes minutes.
    dtypes = {name: dtype for name, dtype in DTYPES.items() if name != "bf16" or has_bfloat16()}
    found: dict[str, Any] = {name: round(matmul_rate(dtype), 1) for name, dtype in dtypes.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
