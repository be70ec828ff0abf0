"""Seconds of `python -m stages.train` from the start of the process to its first optimizer step.

The first forward and backward pass are in it, the step is not. The stage itself runs, unchanged: an audit hook waits
for torch's optimizers to be imported and hooks into them; at the first step the stage is interrupted as by Ctrl-C. It
finds an empty DVC_ROOT, so that no checkpoint is resumed and none is left.

    python -m benchmarks.training.startup
"""

import os
import runpy
import subprocess
import sys
import tempfile
import time
from typing import Any

STAGE = "stages.train"
_MARK = "first step at "


def measure() -> float:
    """Return the seconds that a fresh process took.

    Raises:
        ValueError: the stage ended without a step.

    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = os.environ | {"DVC_ROOT": folder}
        started = time.monotonic()  # the same clock in every process
        command = [sys.executable, "-m", __spec__.name if __name__ == "__main__" else __name__, "--child"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    marks = [line for line in done.stderr.splitlines() if line.startswith(_MARK)]
    if not marks:
        raise ValueError(f"python -m {STAGE} ended before its first step:\n{done.stderr[-2000:]}")
    return float(marks[0].removeprefix(_MARK)) - started


def _stop(*_: Any) -> None:
    sys.stderr.write(f"{_MARK}{time.monotonic()}\n")
    raise KeyboardInterrupt


def _watch_imports() -> None:
    hooked = False

    def watch(event: str, _: Any) -> None:
        nonlocal hooked
        if event == "import" and not hooked:
            register = getattr(sys.modules.get("torch.optim.optimizer"), "register_optimizer_step_pre_hook", None)
            if register is not None:
                hooked = True
                register(_stop)

    sys.addaudithook(watch)


def main() -> None:
    """Measure once, or be the process that is measured."""
    if "--child" not in sys.argv:
        print(f"{measure():.2f} s before the first step of python -m {STAGE}")
        return
    sys.argv = [STAGE]
    _watch_imports()
    runpy.run_module(STAGE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
