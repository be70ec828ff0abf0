"""The benchmark of single texts."""

import subprocess
import sys

import numpy as np


def test_the_peak_memory_is_that_of_the_process_and_not_of_the_one_that_started_it():
    large = np.ones(40_000_000)  # 320 MB
    code = "from benchmarks.board.probe import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert large.nbytes > 3e8 and 5e6 < int(done.stdout) < 1e8
