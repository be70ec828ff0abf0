"""The classifiers at hand, loaded when first asked: the workspace's, its ONNX exports, and other revisions'."""

import threading
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from apps.revisions import NoSuchOutputError, copy_of, fetch_output, open_repository, resolve
from intents.bulk.loading import DEFAULT_VARIANT, load_scorer
from intents.bulk.scoring import Scorer
from intents.calibrations import CALIBRATION_FILE, Calibration
from intents.exported import MODEL_FILES

WORKSPACE = "workspace"
_ONNX = "onnx-"
_ONNX_FILES = {_ONNX + variant: MODEL_FILES[variant] for variant in ("int8", "fp32")}
_LABELS = {
    WORKSPACE: "workspace (PyTorch)",
    "onnx-int8": "workspace (ONNX, int8)",
    "onnx-fp32": "workspace (ONNX, fp32)",
}
_CLASSIFIER_DIR, _ONNX_DIR = "models/classifier", "models/onnx"
_PREDICTIONS = "data/predictions/test.parquet"
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Loaded:
    """A classifier in memory."""

    name: str
    scorer: Scorer
    is_calibrated: bool


class Catalogue:
    """Finds classifiers by name and keeps the `num_kept` last used in memory; each computes with `num_threads`."""

    def __init__(self, root: Path, num_kept: int, num_threads: int) -> None:
        self._root = root
        self._num_threads = num_threads
        self._num_kept = num_kept
        self._loaded: OrderedDict[tuple[str, int], Loaded] = OrderedDict()
        self._lock = threading.Lock()
        self._fetching = threading.Lock()  # of its own: a slow remote keeps nobody from what is here

    def choices(self) -> list[tuple[str, str]]:
        """Return (label, name) of the classifiers to choose from, the workspace's first."""
        exported = [name for name, file in _ONNX_FILES.items() if (self._root / _ONNX_DIR / file).is_file()]
        names = [WORKSPACE, *exported]
        found = [(_LABELS[name], name) for name in names]
        return found + [(f"{kind} {rev}", rev) for kind, rev in _revisions(self._root) if rev not in _LABELS]

    def is_here(self, name: str) -> bool:
        """Tell whether the classifier called `name` can be loaded without waiting for a remote.

        Raises:
            ValueError: there is none of that name.

        """
        _check_name(name)
        return name in _LABELS or self._copy_of(name, _CLASSIFIER_DIR).exists()

    def fetch(self, name: str) -> None:
        """Bring the classifier called `name` here, and its answers to the test split, if there are any.

        Raises:
            ValueError: there is none of that name, or the remote does not give it.

        """
        if self.is_here(name) and (name in _LABELS or self._copy_of(name, _PREDICTIONS).exists()):
            return
        with self._fetching:
            fetch_output(name, _CLASSIFIER_DIR, self._root)
            with suppress(NoSuchOutputError):
                fetch_output(name, _PREDICTIONS, self._root)

    def load(self, name: str) -> Loaded:
        """Return the classifier called `name`: one of `choices`, or any other revision that was fetched.

        Raises:
            ValueError: there is none of that name here.

        """
        _check_name(name)
        folder = self._folder(name)
        with self._lock:  # many clients ask for a new classifier at once: it is loaded by one of them
            key = (name, _changed_at(folder))
            if key not in self._loaded:
                self._loaded[key] = _open(name, folder, self._num_threads)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._num_kept:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def predictions_path(self, name: str) -> Path:
        """Return the answers to the test split that belong to the classifier called `name`.

        Raises:
            ValueError: there are none.

        """
        _check_name(name)
        if name not in _LABELS:
            return self._fetched(name, _PREDICTIONS)
        path = self._root / _PREDICTIONS
        if not path.is_file():
            raise ValueError(f"{_PREDICTIONS} does not exist: run `dvc repro`, or `dvc pull {_PREDICTIONS}`")
        return path

    def _folder(self, name: str) -> Path:
        if name == WORKSPACE:
            return self._root / _CLASSIFIER_DIR
        if name in _ONNX_FILES:
            folder = self._root / _ONNX_DIR
            if not (folder / _ONNX_FILES[name]).is_file():
                raise ValueError(
                    f"{_ONNX_DIR} holds no {_ONNX_FILES[name]}: run `dvc repro`, or `dvc pull {_ONNX_DIR}`"
                )
            return folder
        return self._fetched(name, _CLASSIFIER_DIR)

    def _copy_of(self, rev: str, path: str) -> Path:
        return copy_of(resolve(rev, self._root), path, self._root)

    def _fetched(self, rev: str, path: str) -> Path:
        copy = self._copy_of(rev, path)
        if not copy.exists():
            raise ValueError(f"revision {rev!r} has no {path} here; choose it anew to fetch it")
        return copy


def _check_name(name: str) -> None:
    if not name or name.startswith("-") or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError("a classifier's name is `workspace`, or that of a branch, tag, commit or experiment")


def _changed_at(folder: Path) -> int:
    """Return when `folder` last changed, in ns: after `dvc repro` the demo answers with the new classifier."""
    return max((path.stat().st_mtime_ns for path in folder.glob("*")), default=0)


def _open(name: str, folder: Path, num_threads: int) -> Loaded:
    scorer = load_scorer(folder, name.removeprefix(_ONNX) if name in _LABELS else DEFAULT_VARIANT, num_threads)
    scorer.probabilities(["warm up"])  # the first pass allocates; no user should wait for it or read its latency
    return Loaded(name, scorer, (folder / CALIBRATION_FILE).is_file() or scorer.calibration != Calibration())


def _revisions(root: Path) -> list[tuple[str, str]]:
    """Return the kinds and names of the repository's tags and experiments."""
    try:
        repository = open_repository(root)
    except ValueError:  # a copy of the files alone: the classifiers in it answer all the same
        return []
    with repository as repo:
        tags = [("tag", tag) for tag in repo.scm.list_tags()]
        found = Counter(name for runs in repo.experiments.ls(all_commits=True).values() for name, _ in runs if name)
        return tags + [("experiment", name) for name, count in found.items() if count == 1]  # others are ambiguous
