"""What a DVC remote really holds, which DVC itself takes on trust.

Where a folder's list of files is in the remote, DVC assumes that the files are too: `dvc push` and
`dvc status --cloud` then see nothing amiss. Here every object is asked for, and sent again from this clone's
cache on request.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB


def remote_problems(repo: "Repo", remote: str | None, contents: bool, repair: bool) -> list[str]:
    """Return a line for each output in dvc.lock that the remote (None: the default one) does not hold whole.

    `contents` also reads the objects that are there and compares them with their hashes. `repair` first sends
    what lacks or is damaged, as far as this clone's cache has it.

    Raises:
        ValueError: there is no such remote, or it cannot be reached, or it refuses the credentials.

    """
    outs = [out for stage in repo.index.stages if not stage.is_repo_import for out in stage.outs]
    outs = [out for out in outs if out.hash_info and out.use_cache and out.can_push]  # what `dvc push` sends
    try:
        store = repo.cloud.get_remote_odb(remote, "push")
        place = repo.cloud.get_remote(remote, "push").path
        if store.fs.protocol == "local" and not store.fs.exists(place):
            raise ValueError(f"{place} does not exist; is it mounted? A new one is filled by `dvc push`")
        cache = repo.cache.local
        unreadable: set[str] = set()
        objects = {str(out): _objects_of(out, cache if repair else None, store, unreadable) for out in outs}
        wanted = sorted(set().union(*objects.values()))
        absent = set(wanted) - set(store.list_oids_exists(wanted))
        damaged = {name for name in wanted if contents and name not in absent and _is_damaged(store, name)}
        damaged |= unreadable - absent
        sent = _send(cache, store, absent | damaged) if repair else set()
    # Every kind of store has exceptions of its own, from packages that need not be installed.
    except Exception as error:
        raise ValueError(
            f"the remote cannot be asked: {error or type(error).__name__}\nCheck `dvc remote list`, the"
            " network and the credentials (.dvc/config.local or the environment); --lock-only asks no remote"
        ) from error
    return [
        *_lines(objects, absent - sent, "lacks"),
        *_lines(objects, damaged - sent, "has a damaged copy of"),
    ]


def _lines(objects: dict[str, set[str]], names: set[str], what: str) -> Iterator[str]:
    for out, members in objects.items():
        chosen = sorted(members & names)
        if chosen:
            yield (
                f"{out}: the remote {what} {len(chosen)} of its {len(members)} object(s), such as"
                f" {chosen[0]}; run `python -m apps.verify --contents --repair` in a clone that has it"
            )


def _objects_of(out: "Output", cache: "HashFileDB | None", store: "HashFileDB", unreadable: set[str]) -> set[str]:
    """Return the names of the objects that `out` consists of; only a folder's list of files is read.

    Where the list in `store` is not what its name says, its name goes into `unreadable`; `cache` is asked in its place.
    """
    from dvc_data.hashfile.tree import Tree

    own = str(out.hash_info.value)
    for place in (store, cache):
        if place is None or not out.hash_info.isdir or not place.exists(own):
            continue
        if not _is_damaged(place, own):  # a list that is damaged may well be one, of fewer files
            return {own} | {str(file.value) for _, _, file in Tree.load(place, out.hash_info)}
        if place is store:
            unreadable.add(own)
    return {own}


def _is_damaged(store: "HashFileDB", name: str) -> bool:
    digest = hashlib.md5(usedforsecurity=False)
    with store.fs.open(store.oid_to_path(name), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() != name.removesuffix(".dir")


def _send(cache: "HashFileDB", store: "HashFileDB", names: set[str]) -> set[str]:
    """Send the objects `names` from `cache` over whatever is in `store`; return those that `cache` had."""
    had = sorted(name for name in names if cache.exists(name) and not _is_damaged(cache, name))
    if had:
        store.add([cache.oid_to_path(name) for name in had], cache.fs, had, check_exists=False)
    return set(had)
