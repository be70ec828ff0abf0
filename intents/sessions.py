"""Sessions of onnxruntime, and where the graphs that it has rewritten are kept; neither torch nor transformers."""

import hashlib
import os
import platform
import secrets
from pathlib import Path

import onnxruntime

from intents.exported import damaged

OPTIMISATION = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# Fused, residual and normalisation take twice as long as one after the other (onnxruntime 1.32).
_SLOWER = ["SkipLayerNormFusion"]


def open_session(
    path: Path,
    options: onnxruntime.SessionOptions,
    optimisation: str,
    cached: Path | None,
) -> onnxruntime.InferenceSession:
    """Return the session of the model at `path`, started from its rewritten graph at `cached` where that is there."""
    options.graph_optimization_level = OPTIMISATION[optimisation]
    if cached is not None and cached.is_file():
        options.graph_optimization_level = OPTIMISATION["none"]
        try:
            return _session(cached, options)
        except ValueError:  # a damaged copy: what it was made of is still there
            options.graph_optimization_level = OPTIMISATION[optimisation]
    if cached is not None:
        try:
            return _session_kept(path, options, cached)
        except (OSError, ValueError):  # a full disk, or a folder that is no place to write: it goes without a copy
            options.optimized_model_filepath = ""
    return _session(path, options)


def _session_kept(path: Path, options: onnxruntime.SessionOptions, cached: Path) -> onnxruntime.InferenceSession:
    """Return the session of the model at `path`, its rewritten graph written to `cached`."""
    # Threads and processes may make the same copy at once, each its own: the last one stays.
    partial = cached.with_name(f".{cached.name}.{secrets.token_hex(8)}.part")
    cached.parent.mkdir(parents=True, exist_ok=True)
    options.optimized_model_filepath = str(partial)
    try:
        session = _session(path, options)
        os.replace(partial, cached)
    finally:
        partial.unlink(missing_ok=True)
    return session


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class but Exception
        raise damaged(path, str(error).strip().splitlines()[0]) from None


def cached_path(path: Path, sha256: str, optimisation: str, cache_dir: Path) -> Path:
    """Return where the rewritten graph belongs: another model, onnxruntime or processor never finds it."""
    status = path.stat()
    processor = Path("/proc/cpuinfo")
    # "all" picks layouts for this processor; the file's first lines name it, later ones change (MHz).
    hardware = processor.read_text().partition("stepping")[0] if processor.is_file() else platform.machine()
    facts = (
        str(path.resolve()),
        sha256,  # a copy may keep the time of what it replaces, and the size of a model rarely changes
        status.st_size,
        status.st_mtime_ns,
        optimisation,
        onnxruntime.__version__,
        hardware,
    )
    return cache_dir / f"{path.stem}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.onnx"
