"""GPUs of one job alone: jobs that run at the same time agree, through file locks, on who has which."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, FileLock, Timeout

WhenBusy = Literal["wait", "share"]
CPU = "the CPU"
_POLL_S = 1.0


@dataclass(frozen=True)
class Claim:
    """Devices, and the locks that make them this process's until `release`, or until the process ends.

    The operating system drops the locks of a process that is killed, so no job ever waits for a dead one.
    """

    devices: Sequence[str]
    locks: Sequence[BaseFileLock] = ()

    def release(self) -> None:
        """Give the devices back."""
        for lock in self.locks:
            lock.release()


def visible_devices() -> list[str]:
    """Return the GPUs this process may use; ["the CPU"] if there is none.

    They are those of CUDA_VISIBLE_DEVICES, or all. A number there stands for the GPU's UUID, so that jobs which name it
    and jobs which do not agree on who has it; where GPUs of different models stand in CUDA's own order, which is not
    the driver's, it stays a number. Asks the driver's nvidia-smi, not torch: once torch has looked at the GPUs it is
    too late to choose one.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(_gpu_models()) or [CPU]
    names = [name.strip() for name in chosen.split(",")]
    if any(map(str.isdigit, names)):
        models = _gpu_models()
        if len(set(models.values())) == 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
            uuids = dict(zip(map(str, range(len(models))), models, strict=True))
            names = [uuids.get(name, name) for name in names]
    return [name for name in names if name not in ("", "-1")] or [CPU]


def _gpu_models() -> dict[str, str]:
    """Return the model of every GPU that the driver knows, by UUID, in its order."""
    command = ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    uuids_and_models = [line.partition(",") for line in lines if line.strip()]
    return {uuid.strip(): model.strip() for uuid, _, model in uuids_and_models}


def with_models(devices: Sequence[str]) -> list[str]:
    """Return the names of claimed `devices`, those of GPUs with their model: to be read by people.

    It asks torch, so the claim must have been made: torch never looks at CUDA_VISIBLE_DEVICES again.
    """
    import torch

    models = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    # torch may find GPUs without nvidia-smi, which some containers lack, or be unable to use those that it names.
    if list(devices) == [CPU] or len(models) != len(devices):
        return models or [CPU]
    return [f"{model} ({name})" for model, name in zip(models, devices, strict=True)]


def claim_devices(
    num: int | Literal["auto"], when_busy: WhenBusy, lock_dir: Path, devices: Sequence[str] | None = None
) -> Claim:
    """Take `num` of `devices` (default: those visible) for this process, and hide the others from CUDA.

    Jobs that name the same `lock_dir` get devices of their own as long as there are enough; "auto" takes one, so that
    as many jobs as there are GPUs run side by side. A machine without a GPU counts as one device, however many
    processes are to share it. Then `when_busy` decides: "wait" until enough are free, or "share" those that the fewest
    jobs use.

    Raises:
        ValueError: there are GPUs, but fewer than `num`.

    """
    names = list(devices) if devices is not None else visible_devices()
    if "LOCAL_RANK" in os.environ:  # torchrun started this process, and has chosen for it
        return Claim(names)
    wanted = 1 if num == "auto" or names == [CPU] else num
    if wanted > len(names):
        raise ValueError(
            f"train.devices: {wanted} GPUs are more than are visible ({len(names)}: {', '.join(names)}); take at most"
            f" {len(names)}, or set CUDA_VISIBLE_DEVICES= to train in {wanted} processes on the CPU"
        )
    lock_dir.mkdir(parents=True, exist_ok=True)
    claim = _try_claim(wanted, names, 1, lock_dir)
    if claim is None and when_busy == "wait":
        number = f"{wanted} of" if wanted > 1 else "one of"
        sys.stdout.write(f"waiting for other jobs to give back {number}: {', '.join(names)} (runtime.when_busy)\n")
        sys.stdout.flush()
    places = count(2)
    while claim is None:
        if when_busy == "wait":
            time.sleep(_POLL_S)
        claim = _try_claim(wanted, names, next(places) if when_busy == "share" else 1, lock_dir)
    if names != [CPU]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claim.devices)
    return claim


def _try_claim(num: int, devices: Sequence[str], places: int, lock_dir: Path) -> Claim | None:
    """Return the `num` of `devices` that the fewest jobs use, each with a free one of its `places` places; or None.

    All or none: jobs that each held a part of what they need would wait for one another for ever.
    """
    found: dict[str, BaseFileLock] = {}
    with FileLock(lock_dir / "claiming.lock"):
        for place, device in product(range(places), devices):
            if device in found or len(found) == num:
                continue
            lock = FileLock(lock_dir / f"{device.replace('/', '_')}.{place}.lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            found[device] = lock
    claim = Claim([device for device in devices if device in found], list(found.values()))
    if len(found) == num:
        return claim
    claim.release()
    return None
