"""Follows a run in Weights & Biases or TensorBoard; a run never fails, waits or asks because of it."""

import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from intents.params import flatten

_WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
_WITH_KEY = ("online", "shared", "run")


class Tracker(Protocol):
    """A place that numbers are sent to."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Record `values` at an optimizer step."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Record the run's final metrics and close it."""


def start_tracker(report_to: str, project: str, name: str | None, config: dict[str, Any], folder: Path) -> Tracker:
    """Return a tracker that keeps its files under `folder`.

    `name` is the run's name, None lets the service choose; `config` are the parameters to record.

    Raises:
        ValueError: the package for `report_to` is not installed.

    """
    if report_to == "wandb":
        return _Wandb(project, name, config, folder)
    if report_to == "tensorboard":
        return _TensorBoard(name, config, folder)
    return _NoTracker()


class _NoTracker:
    def log(self, values: dict[str, float], step: int) -> None:
        """Do nothing."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Do nothing."""


class _Apart:
    """A service: what goes wrong in it is said once, in place of ending the training."""

    service = ""

    def __init__(self) -> None:
        self._lost = False

    @contextmanager
    def _apart(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the service's own exceptions, those of its settings, of the network, of the disk
            if not self._lost:
                sys.stdout.write(f"{self.service}: {error}; this run is not tracked\n")
            self._lost = True


def _unused(folder: Path) -> Path:
    """Return `folder` or, where there is one, the first of folder-2, folder-3 ... that there is not."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(path for path in chain([folder], numbered) if not path.exists())


class _TensorBoard(_Apart):
    service = "tensorboard"

    def __init__(self, name: str | None, config: dict[str, Any], folder: Path) -> None:
        super().__init__()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                "tracking.report_to: tensorboard is not installed: pip install -c constraints.txt -e '.[tensorboard]'"
            ) from None
        self._dir = _unused(folder / "tensorboard" / (name or "workspace"))
        with self._apart():
            self._writer = SummaryWriter(str(self._dir))
            self._writer.add_text("params", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, values: dict[str, float], step: int) -> None:
        with self._apart():
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)

    def finish(self, summary: dict[str, Any]) -> None:
        with self._apart():
            for key, value in flatten(summary).items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"final/{key}", value)
            self._writer.close()
            sys.stdout.write(f"tensorboard --logdir {self._dir.parent} shows this run\n")


class _Wandb(_Apart):
    """A run that starts beside the training: neither its second on a quick machine nor a slow network is waited for."""

    service = "wandb"

    def __init__(self, project: str, name: str | None, config: dict[str, Any], folder: Path) -> None:
        super().__init__()
        if not os.environ.get("WANDB_MODE", "offline").strip():  # as a file of variables leaves it; wandb takes offence
            del os.environ["WANDB_MODE"]
        mode = os.environ.get("WANDB_MODE")
        if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):  # as transformers has it
            mode = "disabled"
        if mode and mode not in _WANDB_MODES:
            raise ValueError(f"WANDB_MODE: unknown mode {mode!r}; valid: {', '.join(_WANDB_MODES)}")
        folder.mkdir(parents=True, exist_ok=True)
        arguments = {"project": project, "name": name, "config": config, "dir": str(folder)}
        self._starting = ThreadPoolExecutor(1).submit(_start_wandb, arguments, mode)

    def log(self, values: dict[str, float], step: int) -> None:
        with self._apart():
            self._starting.result().log(values, step=step)

    def finish(self, summary: dict[str, Any]) -> None:
        with self._apart():
            run = self._starting.result()
            run.summary.update(flatten(summary))
            run.finish()
            if run.offline:
                sys.stdout.write(f"wandb is offline; to upload this run: wandb sync {Path(run.dir).parent}\n")


def _start_wandb(arguments: dict[str, Any], given_mode: str | None) -> Any:
    import wandb

    settings = _wandb_settings(wandb)
    mode: Any = given_mode or _wandb_mode()
    try:
        if given_mode in _WITH_KEY and not wandb.login(prompt=False, verify=False):  # else it would ask, and wait
            sys.stdout.write(
                f"wandb: WANDB_MODE={given_mode}, but no key (WANDB_API_KEY, wandb login): going on offline\n"
            )
            mode = "offline"
        return wandb.init(**arguments, mode=mode, settings=settings)
    except wandb.Error as error:
        sys.stdout.write(f"wandb: {error}; going on offline\n")
        return wandb.init(**arguments, mode="offline", settings=settings)


def _wandb_settings(wandb: Any) -> Any:
    # Nothing of the machine leaves it but the numbers: no code, no diff, no console output.
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        host="",
        x_disable_meta=True,
        x_save_requirements=False,
        init_timeout=20,
        finish_timeout=60,
        finish_timeout_raises=False,
    )


def _wandb_mode() -> str:
    """Return "online" if there is a key and the server can be reached, else "offline"."""
    import wandb

    server = urlsplit(wandb.Settings().base_url)
    try:
        if not wandb.login(prompt=False, verify=False):
            return "offline"
        port = server.port or (80 if server.scheme == "http" else 443)
        socket.create_connection((server.hostname or "", port), timeout=3).close()
    except (wandb.Error, OSError):
        return "offline"
    return "online"
