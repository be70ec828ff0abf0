"""Results of revisions, read through DVC from Git, the cache or the remote; the workspace is never touched.

A result counts only if it is whole: dvc.lock, settings, metrics and predictions of a revision must belong together.
"""

import hashlib
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from apps.revisions import hashes_in_folder, open_repository, path_in_git, remotes_of, resolve
from intents.calibrations import ABSTAIN
from intents.grouping import Actions, Result
from intents.params import flatten, load_yaml
from intents.tables import NO_ACTION, read_fact, read_judged

WORKSPACE = "workspace"
PREDICTIONS = "data/predictions/test.parquet"
METRICS = "metrics/evaluate.json"
_COLUMNS = ["text", "intent", "kind", "predicted", "confidence"]


class ResultReader:
    """Reads results; a context, since it keeps the repository open.

    dvc.lock says by which hash the cache knows a revision's predictions. A DVCFileSystem per revision would parse
    dvc.yaml and dvc.lock with all of DVC's checks, 0.3 s each; it is asked only for what the cache lacks.
    """

    def __init__(self, root: Path = Path(".")) -> None:
        self._root = root
        self._repo = open_repository(root)
        self._trees: dict[str, Any] = {}  # by commit: opening one takes longer than reading a file in it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._repo.close()

    def read(self, rev: str, commit: str | None = None) -> Result:
        """Return the result of `rev`: "workspace", a branch, a tag, a commit or an experiment; `commit`, where known.

        Raises:
            ValueError: there is no such revision, or its result is missing or does not belong to its settings.

        """
        if commit is None and rev != WORKSPACE:
            commit = resolve(rev, self._root)
        lock = self._read_mapping(rev, commit, "dvc.lock").get("stages") or {}
        settings = self._read_mapping(rev, commit, "params.yaml")
        stages = _stages_behind(rev, lock)
        outputs = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
        recorded, sources = _check_current(rev, stages, outputs, settings), _sources(stages, outputs)
        self._check_sources(rev, commit, sources)
        metrics = self._read_tracked(rev, commit, METRICS)
        predictions = self._read_output(rev, commit, PREDICTIONS, outputs[PREDICTIONS])
        for path, content in ((METRICS, metrics), (PREDICTIONS, predictions)):
            if outputs.get(path) != _md5(content):
                raise ValueError(
                    f"{rev}: {path} is not what dvc.lock records, so it is no finished result;"
                    " `dvc repro` makes it anew"
                )
        return _to_result(rev, recorded, sources, _parse(metrics)["test"], predictions)

    def _check_sources(self, rev: str, commit: str | None, sources: dict[str, str]) -> None:
        """Raise ValueError if code or raw data is not what the results were made of, as far as Git or DVC has it."""
        for path, md5 in sources.items():
            now = self._md5_of_source(rev, commit, path)
            if now is not None and now != md5:
                raise ValueError(
                    f"{rev}: {path} has changed since the results were made; `dvc repro` or `dvc exp run` first"
                )

    def _md5_of_source(self, rev: str, commit: str | None, path: str) -> str | None:
        """Return the hash of a source at this revision, "" if it is gone; None where that cannot be known here."""
        try:
            return _md5(self._read_tracked(rev, commit, path))
        except (ValueError, IsADirectoryError):  # tracked by DVC, or outside the repository
            pass
        for tracked in (Path(path), *Path(path).parents[:-1]):  # the file, or a folder that it lies in
            try:
                md5 = str(_parse(self._read_tracked(rev, commit, f"{tracked.as_posix()}.dvc"))["outs"][0]["md5"])
            except ValueError:
                continue
            if tracked == Path(path):
                return md5
            files = hashes_in_folder(self._repo, md5)
            return None if files is None else files.get(Path(path).relative_to(tracked).as_posix(), "")
        return None

    def _read_tracked(self, rev: str, commit: str | None, path: str) -> bytes:
        try:
            if commit is None:
                return (self._root / path).read_bytes()
            if commit not in self._trees:
                self._trees[commit] = self._repo.scm.get_fs(commit)
            content: bytes = self._trees[commit].read_bytes(path_in_git(self._repo, path))
        except FileNotFoundError:
            raise ValueError(f"{rev}: has no {path}; `dvc repro` makes what is missing") from None
        return content

    def _read_mapping(self, rev: str, commit: str | None, path: str) -> dict[str, Any]:
        try:
            found = _parse(self._read_tracked(rev, commit, path))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{rev}: {path} is not valid YAML ({reason}); mend it, or finish the merge") from None
        return found if isinstance(found, dict) else {}

    def _read_output(self, rev: str, commit: str | None, path: str, md5: str) -> bytes:
        from dvc.api import DVCFileSystem

        at_hand = self._root / path if commit is None else Path(self._repo.cache.local.oid_to_path(md5))
        if at_hand.is_file():
            return at_hand.read_bytes()
        try:
            files = DVCFileSystem(str(self._root), rev=commit, subrepos=True, config=remotes_of(self._repo))
            content: bytes = files.read_bytes(path if commit is None else path_in_git(self._repo, path))
        except Exception as error:  # DVC's index and each kind of remote have exceptions of their own
            reason = "" if isinstance(error, FileNotFoundError) else f" ({error})"
            raise ValueError(
                f"{rev}: {path} is neither in the DVC cache nor in its remote{reason}; `dvc repro` makes it where that"
                " revision is checked out, `dvc fetch` or `dvc exp pull` brings a colleague's"
            ) from None
        return content


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parse(content: bytes) -> Any:
    return load_yaml(content.decode("utf-8"))


def _sources(stages: dict[str, Any], outputs: dict[str, str]) -> dict[str, str]:
    """Return the hashes of the code and the raw data."""
    deps = [dep for stage in stages.values() for dep in stage.get("deps", [])]
    return {dep["path"]: str(dep["md5"]) for dep in deps if dep["path"] not in outputs}


def _stages_behind(rev: str, lock: dict[str, Any]) -> dict[str, Any]:
    """Return the stages that the predictions came from."""
    maker = {out["path"]: name for name, stage in lock.items() for out in stage.get("outs", [])}
    if PREDICTIONS not in maker:
        raise ValueError(f"{rev}: no stage of dvc.lock has made {PREDICTIONS}; `dvc repro` first")
    found: dict[str, Any] = {}
    waiting = [maker[PREDICTIONS]]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = lock[name]
            waiting += [maker[dep["path"]] for dep in lock[name].get("deps", []) if dep["path"] in maker]
    return {name: stage for name, stage in lock.items() if name in found}


def _check_current(
    rev: str, stages: dict[str, Any], outputs: dict[str, str], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings, by dotted name, that the stages ran with.

    Raises:
        ValueError: params.yaml says something else, or a stage read what another has since replaced.

    """
    recorded: dict[str, Any] = {}
    for name, stage in stages.items():
        for dep in stage.get("deps", []):
            if outputs.get(dep["path"], dep["md5"]) != dep["md5"]:
                raise ValueError(f"{rev}: stage {name} has not seen the newest {dep['path']}; `dvc repro` it")
        for section, values in stage.get("params", {}).get("params.yaml", {}).items():
            now = flatten({section: _at(settings, section)})
            then = flatten({section: values})
            stale = sorted(key for key in now | then if now.get(key) != then.get(key))
            if stale:
                key = stale[0]
                raise ValueError(
                    f"{rev}: params.yaml says {key}: {now.get(key)!r}, but the results were made with"
                    f" {then.get(key)!r}; `dvc repro` or `dvc exp run` first"
                )
            recorded |= then
    return recorded


def _at(settings: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings


def _to_result(
    rev: str, settings: dict[str, Any], sources: dict[str, str], metrics: dict[str, Any], predictions: bytes
) -> Result:
    """Return the result with its rows and intents in alphabetical order: only their content can differ."""
    table = read_judged(pa.BufferReader(predictions), _COLUMNS)
    intents = sorted(read_fact(pa.BufferReader(predictions), "intents"))
    label_of = {name: label for label, name in reversed(list(enumerate([*intents, ABSTAIN])))}
    columns = table.sort_by([("text", "ascending"), ("intent", "ascending")]).to_pydict()
    return Result(
        name=rev,
        settings=settings,
        sources=sources,
        metrics=metrics,
        intents=intents,
        texts=columns["text"],
        kinds=columns["kind"],
        labels_n=np.array([label_of[intent] for intent in columns["intent"]]),
        predicted_n=np.array([label_of[intent] for intent in columns["predicted"]]),
        confidence_n=np.array(columns["confidence"], dtype=np.float32),
        actions=_read_actions(predictions),
    )


def _read_actions(predictions: bytes) -> Actions | None:
    """Return what a car would do with all rows, out-of-scope ones that no answer is right for included."""
    no_action = read_fact(pa.BufferReader(predictions), NO_ACTION, default=[])
    if not no_action:
        return None
    table = pq.read_table(pa.BufferReader(predictions), columns=["text", "intent", "answer"])
    rows = table.sort_by([("text", "ascending"), ("intent", "ascending")]).to_pydict()
    intents, answers = np.array(rows["intent"]), np.array(rows["answer"])
    return Actions(
        texts=rows["text"],
        harmless_n=np.isin(intents, no_action),
        obeyed_n=intents == answers,
        acted_n=~np.isin(answers, [*no_action, ABSTAIN]),
    )
