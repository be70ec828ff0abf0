"""Follows a run in Weights & Biases or TensorBoard; a run never fails, waits or asks because of it."""

import os
import socket
import sys
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

_WANDB_MODES = ("online", "offline", "disabled", "shared")


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


class _TensorBoard:
    def __init__(self, name: str | None, config: dict[str, Any], folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                "tracking.report_to: tensorboard is not installed: pip install -e '.[tensorboard]'"
            ) from None
        self._dir = folder / "tensorboard" / (name or "workspace")
        self._writer = SummaryWriter(str(self._dir))
        self._writer.add_text("params", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def finish(self, summary: dict[str, Any]) -> None:
        for key, value in _flatten(summary).items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"final/{key}", value)
        self._writer.close()
        sys.stdout.write(f"tensorboard --logdir {self._dir.parent} shows this run\n")


class _Wandb:
    def __init__(self, project: str, name: str | None, config: dict[str, Any], folder: Path) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        arguments: dict[str, Any] = {"project": project, "name": name, "config": config, "dir": str(folder)}
        mode: Any = os.environ.get("WANDB_MODE") or _wandb_mode()
        if mode not in _WANDB_MODES:
            raise ValueError(f"WANDB_MODE: unknown mode {mode!r}; valid: {', '.join(_WANDB_MODES)}")
        try:
            self._run = wandb.init(**arguments, mode=mode, settings=_wandb_settings(wandb))
        except wandb.Error as error:
            sys.stdout.write(f"wandb: {error}; going on offline\n")
            self._run = wandb.init(**arguments, mode="offline", settings=_wandb_settings(wandb))
        self._offline_dir = Path(self._run.dir).parent if self._run.offline else None

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def finish(self, summary: dict[str, Any]) -> None:
        self._run.summary.update(_flatten(summary))
        self._run.finish()
        if self._offline_dir is not None:
            sys.stdout.write(f"wandb is offline; to upload this run: wandb sync {self._offline_dir}\n")


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


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
