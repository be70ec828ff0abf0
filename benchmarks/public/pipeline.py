"""Runs stages of dvc.yaml with settings of their own, each in an empty folder that holds what dvc.yaml says it reads.

Outputs are kept by what made them (settings, code, data, package versions): what is there already is not made again.
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.machine import describe
from intents.checkpoints import run_key
from intents.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
NONE = "data/none"
PACKAGES = ("torch", "transformers", "numpy", "scikit-learn")
CODE = (".py", ".j2")
READ = ("params.yaml", "intents", "stages", "benchmarks/public/*.yaml")  # what a figure depends on, in Git
RECORD = "record.json"


class Pipeline:
    """The stages of dvc.yaml under `params`; `sources` are data files by the paths that the stages know."""

    def __init__(self, params: dict[str, dict[str, Any]], sources: Mapping[str, Path], cache_dir: Path) -> None:
        self._params = params
        self._places = dict(sources)
        self._cache_dir = cache_dir
        self._stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        self.records: dict[str, dict[str, Any]] = {}  # stage -> what it cost, and where and when it ran

    def run(self, stage: str) -> None:
        """Run `stage` unless it ran before; those before it must have run.

        Raises:
            ValueError: it failed.

        """
        code, data = self._read_by(stage)
        settings = [self._setting(name) for name in self._stages[stage].get("params", [])]
        versions = {name: version(name) for name in PACKAGES}
        key = run_key({"stage": stage, "params": settings, "versions": versions}, [*code, *data.values()])
        folder = self._cache_dir / "stages" / f"{stage}-{key}"
        if not folder.is_dir():
            self._execute(stage, data, folder)
        self._places |= {path: folder / path for path in self._made_by(stage)}
        self.records[stage] = json.loads((folder / RECORD).read_text(encoding="utf-8"))

    def place_of(self, path: str) -> Path:
        """Return where the output that the stages call `path` lies."""
        return self._places[path]

    def metrics(self, name: str) -> dict[str, Any]:
        """Return the content of metrics/<name>.json."""
        found: dict[str, Any] = json.loads(self.place_of(f"metrics/{name}.json").read_text(encoding="utf-8"))
        return found

    def _read_by(self, stage: str) -> tuple[list[Path], dict[str, Path]]:
        """Return the code that a stage reads, and its data by the paths that it knows."""
        deps = [self._setting(dep[2:-1]) if dep.startswith("${") else dep for dep in self._stages[stage]["deps"]]
        code = [ROOT / dep for dep in deps if dep.endswith(CODE)]
        data = [dep for dep in deps if not dep.endswith(CODE) and dep != NONE]
        return code, {dep: self._places.get(dep, ROOT / dep) for dep in data}

    def _made_by(self, stage: str) -> list[str]:
        listed = [item for kind in ("outs", "plots", "metrics") for item in self._stages[stage].get(kind, [])]
        return [item if isinstance(item, str) else next(iter(item)) for item in listed]

    def _setting(self, name: str) -> Any:
        """Return a section of the settings, or section.name."""
        section, _, key = name.partition(".")
        return self._params[section][key] if key else self._params[section]

    def _execute(self, stage: str, data: Mapping[str, Path], target: Path) -> None:
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache_dir) as scratch:
            folder = Path(scratch) / "run"
            for path, source in data.items():
                _link(source, folder / path)
            write_text(folder / "params.yaml", yaml.safe_dump(self._params, sort_keys=False))
            started, cpu_started = time.perf_counter(), _cpu_seconds()
            run_stage(stage, folder)
            seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu_started
            kept = Path(scratch) / "kept"
            for path in self._made_by(stage):
                (kept / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(folder / path, kept / path)
            _share_copies(kept, data)
            cost = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}
            write_json(kept / RECORD, {**cost, "machine": machine()})
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_dir():  # another benchmark may have been faster
                os.replace(kept, target)


def run_stage(stage: str, folder: Path) -> None:
    """Run a stage in `folder`, as DVC would.

    Raises:
        ValueError: it failed.

    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=False)
    if done.returncode:
        raise ValueError(f"stages.{stage} failed with exit code {done.returncode}, see above")


@cache
def machine() -> dict[str, str]:
    """Return what `describe` does, the number of threads, the GPU if there is one, and whether code is uncommitted."""
    found = describe()
    changed = ["git", "status", "--porcelain", "--untracked-files=no", *READ]
    if subprocess.run(changed, check=False, capture_output=True, cwd=ROOT).stdout.strip():
        found["commit"] += " with changes"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    return found | {"processor": f"{found['processor']}, {gpu}"}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)


def _share_copies(kept: Path, data: Mapping[str, Path]) -> None:
    """Link what a stage merely copied to the original: the weights would take their room twice."""
    originals = {file.name: file for folder in data.values() if folder.is_dir() for file in folder.iterdir()}
    for file in [path for path in kept.rglob("*") if path.is_file()]:
        original = originals.get(file.name)
        if original is not None and filecmp.cmp(original, file, shallow=False):
            file.unlink()
            os.link(original, file)


def _cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
