"""Runs a module in several processes at once, by torchrun's own launcher, and ends them together."""

import logging
import os
import signal
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, Literal

_LAUNCHER = "INTENTS_LAUNCHER_PID"
_WATCH_S = 0.5
_SHUTDOWN_S = 10


def num_launched() -> int | None:
    """Return how many processes torchrun or `launch` started on all machines; None: this one was started by itself."""
    if "LOCAL_RANK" not in os.environ:
        return None
    if "WORLD_SIZE" not in os.environ:
        raise ValueError("LOCAL_RANK is set, WORLD_SIZE is not: unset it, or start with torchrun, which sets both")
    return int(os.environ["WORLD_SIZE"])


def num_together(devices: int | Literal["auto"]) -> int:
    """Return how many processes train together, on all machines, by the setting train.devices.

    Raises:
        ValueError: torchrun has started another number.

    """
    launched = num_launched()
    if launched is None:
        return 1 if devices == "auto" else devices
    here = int(os.environ.get("LOCAL_WORLD_SIZE", launched))
    if devices not in ("auto", here):
        raise ValueError(
            f"train.devices: must be auto or {here}, for so many processes were started on this machine, got {devices};"
            f" or start them with --nproc-per-node {devices}"
        )
    return launched


def is_first() -> bool:
    """Return whether this process is the one that writes results: the first of those launched, or the only one."""
    return num_launched() is None or os.environ["RANK"] == "0"


def work(job: Callable[[], None]) -> None:
    """Call `job` as one of the processes launched, on a GPU of its own; if it fails, `launch` learns when.

    The process ends as soon as its launcher has ended, be it killed: nothing goes on unseen.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.errors import record

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    launcher = int(os.environ.get(_LAUNCHER, os.getppid()))

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_WATCH_S)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # accelerate's business
    if _LAUNCHER in os.environ:
        record(job)()
    else:  # torchrun by hand would print the stack trace of every process
        job()


def num_cores() -> int:
    """Return how many cores this process may use; a container or a job scheduler may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launch(module: str, num_processes: int) -> None:
    """Run `python -m module` in `num_processes` processes of this machine, each with its share of the CPU cores.

    The first one prints to this terminal; of the others, and of all that goes to stderr, what explains a failure.

    Raises:
        ChildProcessError: a process was killed; all others have been ended.
        SystemExit: a process failed, and what it wrote about that has been printed; all others have been ended.
        KeyboardInterrupt: Ctrl-C; all processes have been ended.

    """
    # Heavy, and needed by nobody who trains in one process.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // num_processes)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no warnings about lost connections when processes end
    os.environ[_LAUNCHER] = str(os.getpid())
    logging.disable()  # torchrun's own tables and stack traces
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        redirects = {rank: Std.ALL if rank else Std.ERR for rank in range(num_processes)}
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            shutdown_timeout=_SHUTDOWN_S,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=redirects),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module)
        except ChildFailedError as error:
            _explain(error.failures, Path(folder), num_processes)
        except SignalException as stopped:
            if stopped.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + stopped.sigval) from None
        sys.stderr.write(_written(Path(folder), 0))


def _explain(failures: dict[int, Any], folder: Path, num_processes: int) -> None:
    """Raise an error about the process whose failure explains the others'."""

    def order(item: tuple[int, Any]) -> tuple[bool, bool, float]:
        # One that is killed leaves others that complain of it; those left are ended by SIGTERM.
        return item[1].exitcode != -signal.SIGKILL, item[1].exitcode < 0, item[1].timestamp

    rank, failure = min(failures.items(), key=order)
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        raise ChildProcessError(
            f"process {rank + 1} of {num_processes} was ended by {name}, perhaps because memory ran out; the others"
            " have been ended too"
        )
    sys.stderr.write(_written(folder, rank))
    raise SystemExit(failure.exitcode)


def _written(folder: Path, rank: int) -> str:
    """Return what the process wrote to stderr."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob(f"{rank}/stderr.log"))
