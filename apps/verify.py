"""Answers, without pulling data: does dvc.lock belong to this code and these params, and is all it names in the remote?

Prints one line per problem. The exit code is 0 where there is none, 1 where there are some or the remote cannot be asked.

    python -m apps.verify                        # the workspace, against the default remote
    python -m apps.verify --rev v1.0 --remote s  # a tag, branch, commit or experiment, against the remote `s`
    python -m apps.verify --lock-only            # asks no remote and needs no credentials
"""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from apps.revisions import resolve
from intents.cli import run

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage
    from dvc_data.hashfile.db import HashFileDB


def verify(rev: str | None, remote: str | None, lock_only: bool = False, root: Path = Path(".")) -> list[str]:
    """Return the problems of revision `rev` (None: of the workspace), one line each.

    Raises:
        ValueError: no such revision or remote, dvc.yaml or dvc.lock cannot be read, or the remote cannot be asked.

    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo, repo.switch(resolve(rev, root)) if rev else nullcontext():
            return [*lock_problems(repo), *([] if lock_only else remote_problems(repo, remote))]
    except DvcException as error:
        raise ValueError(error) from None


def lock_problems(repo: "Repo") -> Iterator[str]:
    """Yield a line for each way in which dvc.lock is not what `dvc repro` would have written.

    What a stage takes from another is compared inside dvc.lock, everything else with the files in Git: no data is read.
    """
    made = {out.fs_path: out for stage in repo.index.stages for out in stage.outs}
    for stage in repo.index.stages:
        name = getattr(stage, "name", None) or Path(stage.path).name
        stale = [*_stale_command(stage), *_stale_deps(stage, made), *_stale_outs(stage)]
        if not any(entry.hash_info for entry in (*stage.deps, *stage.outs)):
            stale = ["not in dvc.lock"]
        yield from (f"{name}: {problem}; run `dvc repro` and commit dvc.lock" for problem in stale)


def _stale_command(stage: "Stage") -> Iterator[str]:
    if stage.changed_stage():
        yield "its cmd in dvc.yaml is not the one in dvc.lock"


def _stale_deps(stage: "Stage", made: dict[str, "Output"]) -> Iterator[str]:
    for dep in stage.deps:
        maker = made.get(dep.fs_path)
        if maker is None:
            yield from _stale_file(dep)
        elif dep.hash_info != maker.hash_info:
            yield f"the {dep} in dvc.lock that it read is not the one that stage {maker.stage.name} wrote"


def _stale_outs(stage: "Stage") -> Iterator[str]:
    for out in stage.outs:
        if not out.hash_info:
            yield f"{out} is not in dvc.lock"
        elif not out.use_cache:
            yield from _stale_file(out)


def _stale_file(entry: "Output") -> Iterator[str]:
    """Compare a file in Git, or params in one, with dvc.lock."""
    for name, change in entry.workspace_status().items():
        if isinstance(change, dict):
            yield from (f"{param} in {name} is {how} since dvc.lock" for param, how in change.items())
        elif change == "deleted":
            yield f"{name} does not exist"
        else:
            yield f"{name} is {change} since dvc.lock"


def remote_problems(repo: "Repo", remote: str | None) -> Iterator[str]:
    """Yield a line for each output in dvc.lock that the remote (None: the default one) does not hold whole.

    Raises:
        ValueError: there is no such remote, or it cannot be reached, or it refuses the credentials.

    """
    outs = [out for stage in repo.index.stages for out in stage.outs if out.hash_info and out.use_cache and out.can_push]
    try:
        store = repo.cloud.get_remote_odb(remote, "push")
        wanted = {out: _objects_of(out, store) for out in outs}
        found = set(store.oids_exist(sorted({name for names in wanted.values() for name in names})))
    # Every kind of store has exceptions of its own, from packages that need not be installed.
    except Exception as error:
        raise ValueError(
            f"the remote cannot be asked: {error or type(error).__name__}\nCheck `dvc remote list`, the network, and the"
            " credentials in .dvc/config.local or the environment; --lock-only asks no remote"
        ) from error
    for out in outs:
        absent = sorted(wanted[out] - found)
        if absent:
            count = f"{len(absent)} of {len(wanted[out])} objects, such as {absent[0]}"
            yield f"{out}: not in the remote: {count}; run `dvc push` where it was made, or make it again with `dvc repro`"


def _objects_of(out: "Output", store: "HashFileDB") -> set[str]:
    """Return the names of the objects that `out` consists of; only a folder's list of files is fetched."""
    from dvc_data.hashfile.tree import Tree

    names = {str(out.hash_info.value)}
    if out.hash_info.isdir and store.oids_exist(list(names)):
        names |= {str(file.value) for _, _, file in Tree.load(store, out.hash_info)}
    return names


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m apps.verify", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rev", help="branch, tag, commit or experiment (default: the workspace)")
    parser.add_argument("--remote", help="name of a remote (default: the default remote)")
    parser.add_argument("--lock-only", action="store_true", help="compare dvc.lock with the code and params alone")
    arguments = parser.parse_args()
    problems = verify(arguments.rev, arguments.remote, arguments.lock_only)
    print("\n".join(problems) or "dvc.lock is current" + ("" if arguments.lock_only else " and the remote holds all it names"))
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    run(main)
