"""One GPU per job: jobs that run at the same time agree, through file locks, on who has which."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, FileLock, Timeout

WhenBusy = Literal["wait", "share"]
MACHINE = "machine"
_POLL_S = 1.0


@dataclass(frozen=True)
class Claim:
    """A device, and the lock that makes it this process's until `release`, or until the process ends.

    The operating system drops the lock of a process that is killed, so no job ever waits for a dead one.
    """

    device: str
    lock: BaseFileLock | None = None

    def release(self) -> None:
        """Give the device back."""
        if self.lock is not None:
            self.lock.release()


def visible_devices() -> list[str]:
    """Return the GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; ["machine"] if there is none.

    Asks the driver's nvidia-smi, not torch: once torch has looked at the GPUs it is too late to choose one.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        try:
            command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
            chosen = ",".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        except (OSError, subprocess.CalledProcessError):
            chosen = ""
    return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")] or [MACHINE]


def claim_device(when_busy: WhenBusy, lock_dir: Path, devices: Sequence[str] | None = None) -> Claim:
    """Take one of `devices` (default: those visible) for this process, and hide the others from CUDA.

    Jobs that name the same `lock_dir` get a device each as long as there are enough; a machine without a GPU
    counts as one device. Then `when_busy` decides: "wait" until one is free, or "share" the one that the
    fewest jobs use.
    """
    names = list(devices) if devices is not None else visible_devices()
    if "LOCAL_RANK" in os.environ:  # torchrun started this process, and has chosen for it
        return Claim(",".join(names))
    lock_dir.mkdir(parents=True, exist_ok=True)
    claim = _try_claim(names, 0, lock_dir)
    if claim is None and when_busy == "wait":
        sys.stdout.write(f"waiting for other jobs to give back one of: {', '.join(names)} (runtime.when_busy)\n")
        sys.stdout.flush()
    places = count(1)
    while claim is None:
        if when_busy == "wait":
            time.sleep(_POLL_S)
        claim = _try_claim(names, next(places) if when_busy == "share" else 0, lock_dir)
    if claim.device != MACHINE:
        os.environ["CUDA_VISIBLE_DEVICES"] = claim.device
    return claim


def _try_claim(devices: Sequence[str], place: int, lock_dir: Path) -> Claim | None:
    """Return the first of `devices` where place number `place` is free, or None."""
    for device in devices:
        lock = FileLock(lock_dir / f"{device.replace('/', '_')}.{place}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        return Claim(device, lock)
    return None
