"""Checks, without pulling data, that dvc.lock fits code and params and that the remote holds its outputs.

Prints one line per problem. The exit code is 0 where there is none, 1 where there are some or the remote does
not answer.

    python -m apps.verify                        # the workspace, against the default remote
    python -m apps.verify --rev v1.0 --remote s  # a tag, branch, commit or experiment, against the remote `s`
    python -m apps.verify --contents             # reads every object in the remote and compares its hash
    python -m apps.verify --contents --repair    # sends what is missing or damaged, from this clone's cache
    python -m apps.verify --lock-only            # asks no remote and needs no credentials
"""

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from apps.remotes import remote_problems
from apps.revisions import hashes_in_folder, remotes_of, resolve
from intents.cli import run
from intents.params import flatten, read_params

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage


def verify(
    rev: str | None = None,
    remote: str | None = None,
    lock_only: bool = False,
    contents: bool = False,
    repair: bool = False,
    root: Path = Path("."),
) -> list[str]:
    """Return the problems of revision `rev` (None: of the workspace), one line each.

    Raises:
        ValueError: no such revision or remote, dvc.yaml or dvc.lock cannot be read, or the remote does not
            answer.

    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if rev is None:
        _check_paths(root)
    try:
        with Repo(str(root)) as repo, _switched(repo, rev, root) if rev is not None else nullcontext():
            problems = list(lock_problems(repo))
            if lock_only:
                return problems
            try:
                return [*problems, *remote_problems(repo, remote, contents, repair)]
            except ValueError as error:  # what is wrong with dvc.lock is known all the same
                raise ValueError("\n".join([*problems, str(error)])) from None
    except DvcException as error:
        raise ValueError(error) from None


def _check_paths(root: Path) -> None:
    """Raise ValueError where params.yaml has no path for one that dvc.yaml wants; DVC would not say which."""
    stages = root / "dvc.yaml"
    names = re.findall(r"\$\{([\w.]+)\}", stages.read_text(encoding="utf-8")) if stages.exists() else []
    params = flatten(read_params(root / "params.yaml")) if names else {}
    for name in names:
        path = params.get(name)
        if not isinstance(path, str) or not path:
            raise ValueError(f"params.yaml: {name} must be the path of a file (data/none: none), got {path!r}")


@contextmanager
def _switched(repo: "Repo", rev: str, root: Path) -> Iterator[None]:
    """While it lasts, `repo` is that of revision `rev`, with today's remotes."""
    remotes = remotes_of(repo)
    with repo.switch(resolve(rev, root)):
        for section, settings in remotes.items():
            repo.config[section].update(settings)
        yield


def lock_problems(repo: "Repo") -> Iterator[str]:
    """Yield a line for each way in which dvc.lock is not what `dvc repro` would have written.

    What a stage takes from another is compared inside dvc.lock, all else with the files in Git: data is not
    needed.
    """
    made = {out.fs_path: out for stage in repo.index.stages for out in stage.outs}
    for stage in repo.index.stages:
        name = getattr(stage, "name", None) or Path(stage.path).name
        found = [*_stale_command(stage), *_stale_deps(stage, made), *_stale_outs(stage)]
        stale = list(dict.fromkeys(found))  # a stage may list a file twice: data/none stands for two sources
        if not any(entry.hash_info for entry in (*stage.deps, *stage.outs)):
            stale = ["not in dvc.lock"]
        yield from (f"{name}: {problem}; run `dvc repro` and commit dvc.lock" for problem in stale)


def _stale_command(stage: "Stage") -> Iterator[str]:
    if stage.changed_stage():
        yield "its cmd in dvc.yaml is not the one in dvc.lock"


def _stale_deps(stage: "Stage", made: dict[str, "Output"]) -> Iterator[str]:
    for dep in [] if stage.is_repo_import else stage.deps:  # what `dvc import` takes from another repository
        maker = made.get(dep.fs_path)
        if maker is None:
            yield from _stale_source(dep, made)
        elif dep.hash_info != maker.hash_info:
            yield f"the {dep} in dvc.lock that it read is not the one that {maker.stage.addressing} wrote"
        elif maker.stage.is_data_source and dep.exists:  # data of `dvc add`, which anyone may edit
            yield from _stale_file(dep)


def _stale_source(dep: "Output", made: dict[str, "Output"]) -> Iterator[str]:
    """Compare what no stage makes; data that is not pulled, or of another revision, with the list of its folder."""
    folder = next((out for path, out in made.items() if dep.fs_path.startswith(f"{path}/")), None)
    if folder is None or dep.exists:
        yield from _stale_file(dep)
        return
    files = hashes_in_folder(dep.repo, str(folder.hash_info.value))
    name = Path(dep.fs_path).relative_to(folder.fs_path).as_posix()
    if files is not None and files.get(name) != dep.hash_info.value:
        yield f"{dep} is {'modified' if name in files else 'deleted'} since dvc.lock"


def _stale_outs(stage: "Stage") -> Iterator[str]:
    for out in stage.outs:
        if not out.hash_info:
            yield f"{out} is not in dvc.lock"
        elif not out.use_cache:
            yield from _stale_file(out)


def _stale_file(entry: "Output") -> Iterator[str]:
    """Compare a file in Git, or params in one, with dvc.lock."""
    if not entry.hash_info and entry.exists:
        yield f"{entry} is not in dvc.lock"
        return
    for name, change in entry.workspace_status().items():
        if isinstance(change, dict):
            yield from (f"{param} in {name} is {how} since dvc.lock" for param, how in change.items())
        elif change == "deleted":
            yield f"{name} does not exist"
        else:
            yield f"{name} is {change} since dvc.lock"


def main() -> None:
    """Run the command."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m apps.verify", description=summary)
    parser.add_argument("--rev", help="branch, tag, commit or experiment (default: the workspace)")
    parser.add_argument("--remote", help="name of a remote (default: the default remote)")
    parser.add_argument("--contents", action="store_true", help="read every object in the remote, check its hash")
    parser.add_argument("--repair", action="store_true", help="send what the remote lacks from this clone's cache")
    parser.add_argument("--lock-only", action="store_true", help="compare dvc.lock with code and params only")
    chosen = parser.parse_args()
    problems = verify(chosen.rev, chosen.remote, chosen.lock_only, chosen.contents, chosen.repair)
    fine = "dvc.lock is current" + ("" if chosen.lock_only else " and the remote holds all it names")
    print("\n".join(problems) or fine)
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    run(main)
