"""Files from which a killed training goes on: one per checkpoint, whole or not there, known to be undamaged.

They lie in a folder that belongs to one combination of settings, data, code and machine: whatever is found there fits.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from intents.files import sha256_of

_KEPT = 2
_FORGOTTEN_S = 14 * 24 * 3600.0  # folders of other settings that nobody went on with for so long are removed


@dataclass(frozen=True)
class Snapshot:
    """All that training has changed after an optimizer step: tensors in CPU memory, and values that fit into JSON."""

    step: int
    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names start with `prefix` and a slash, without them."""
        return {
            name.removeprefix(f"{prefix}/"): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}/")
        }


def surroundings(packages: Sequence[str]) -> dict[str, Any]:
    """Return what beside settings, data and code decides the last digits: versions, and the kind of machine."""
    machine = [platform.machine(), torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()]
    # What multiplies bfloat16, and whether "auto" chooses it.
    machine += [torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()]
    if torch.cuda.is_available():
        machine += [torch.cuda.get_device_name()]
    versions = {name: version(name) for name in packages if find_spec(name)}
    return {"versions": versions, "python": sys.version, "machine": machine}


def run_key(settings: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """Return a hash of `settings` and of the bytes of `paths`: files, and folders with all that is in them."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    # By name: in a copy of the repository, where queued experiments run, the same file has another path.
    hashes = [[file.name, sha256_of(file)] for file in files if file.is_file() and "__pycache__" not in file.parts]
    described = json.dumps([settings, hashes], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:32]


class Checkpoints:
    """The newest two checkpoints of one training, written in the background.

    Only one process uses a folder at a time; for a second one, which would train just the same, `active` is false:
    it neither resumes nor writes. The operating system drops the lock of a process that is killed.
    """

    def __init__(self, parent: Path, key: str, every_s: float) -> None:
        self.folder = parent / key
        self.every_s = every_s
        self._written_at = time.monotonic()
        self._writer: Thread | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            sys.stdout.write("the same training runs already: this one neither writes checkpoints nor resumes\n")
        self.active = self._lock.is_locked
        if self.active:
            os.utime(self.folder)
            _remove_forgotten(parent, self.folder)

    def latest(self) -> Snapshot | None:
        """Return the newest checkpoint that is undamaged, None where there is none."""
        for path in self._paths()[::-1] if self.active else []:
            snapshot = _read(path)
            if snapshot is not None:
                return snapshot
            sys.stdout.write(f"{path} is damaged: going back to the checkpoint before it, or to the start\n")
        return None

    def due(self) -> bool:
        """Return whether `every_s` have passed since the last checkpoint, and that one is written."""
        writing = self._writer is not None and self._writer.is_alive()
        return self.active and not writing and time.monotonic() - self._written_at >= self.every_s

    def write(self, snapshot: Snapshot) -> None:
        """Write `snapshot` in the background; a full disk costs the checkpoint, not the training."""
        self.wait()
        self._written_at = time.monotonic()
        values = json.dumps(snapshot.values)  # now: training goes on changing them
        self._writer = Thread(target=self._write, args=[snapshot.step, snapshot.tensors, values])
        self._writer.start()

    def wait(self) -> None:
        """Wait until what `write` was given lies on the disk."""
        if self._writer is not None:
            self._writer.join()

    def remove(self) -> None:
        """Remove the checkpoints: the training that they belong to has ended well."""
        self.wait()
        if self.active:
            for path in self._paths():
                path.unlink()
            self.release()
            shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Let another process use the folder, and what is in it."""
        self.wait()
        self._lock.release()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def _write(self, step: int, tensors: dict[str, torch.Tensor], values: str) -> None:
        part = self.folder / f"{os.getpid()}.part"
        try:
            save_file(tensors, part, {"values": values})
            _sync(part)
            # The name holds the hash of the content: a single rename makes both durable together.
            part.rename(self.folder / f"{step:09}-{sha256_of(part)[:32]}.safetensors")
            _sync(self.folder)
            for old in [*self._paths()[:-_KEPT], *self.folder.glob("*.part")]:
                old.unlink()
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            sys.stdout.write(f"no checkpoint of step {step}: {error}\n")


def _read(path: Path) -> Snapshot | None:
    step, _, digest = path.stem.partition("-")
    if not sha256_of(path).startswith(digest) or not digest:
        return None
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        values = json.loads(file.metadata()["values"])
    return Snapshot(int(step), tensors, values)


def _sync(path: Path) -> None:
    """Make the file, or the names in the folder, survive a power cut."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_forgotten(parent: Path, own: Path) -> None:
    for folder in parent.iterdir():
        if folder != own and folder.is_dir() and time.time() - folder.stat().st_mtime > _FORGOTTEN_S:
            shutil.rmtree(folder, ignore_errors=True)
