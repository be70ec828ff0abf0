"""Outputs of other revisions: branches, tags, commits and DVC experiments, read without touching the workspace."""

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

CACHE_DIR = Path(".cache/revisions")
_LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def open_repository(root: Path = Path(".")) -> "Repo":
    """Return DVC's view of the repository around `root`, a context to leave when done.

    Raises:
        ValueError: `root` is not in a Git repository with DVC, or DVC cannot read its config.

    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import NoSCM, SCMError

    try:
        repo = Repo(str(root))
        has_revisions = not isinstance(repo.scm, NoSCM)
    except (NotDvcRepoError, SCMError):
        has_revisions = False
    except DvcException as error:  # a mistake in .dvc/config, for instance
        raise ValueError(error) from None
    if not has_revisions:
        raise ValueError(f"other revisions need a Git repository with DVC; {root.resolve()} is in none")
    return repo


def path_in_git(repo: "Repo", path: str) -> str:
    """Return where Git has `path`, which is relative to DVC's root: that may be a folder of a larger repository."""
    return Path(os.path.relpath(repo.root_dir, repo.scm.root_dir), path).as_posix()


def resolve(rev: str, root: Path = Path(".")) -> str:
    """Return the commit, 40 hexadecimal digits, that `rev` (branch, tag, commit or experiment name) stands for.

    Raises:
        ValueError: Git knows no such revision and DVC no such experiment, or `root` is in no repository.

    """
    from dvc.scm import RevError, resolve_rev
    from scmrepo.exceptions import SCMError

    with open_repository(root) as repo:
        try:
            if not rev.strip():  # Git would take HEAD
                raise RevError("no name")
            commit = str(resolve_rev(repo.scm, rev))
            repo.scm.resolve_commit(commit)
            return commit
        except (RevError, AttributeError) as error:  # AttributeError: a file or a folder, such as HEAD:README.md
            if "ambiguous" in str(error):
                raise ValueError(
                    f"experiments of several commits are called {rev!r}; name one by its own commit, which"
                    " `dvc exp list -A` shows"
                ) from None
            raise ValueError(
                f"no branch, tag, commit or experiment is called {rev!r}; `git branch -a`, `git tag` and"
                " `dvc exp list -A` name those there are"
            ) from None
        except SCMError:
            raise ValueError("the Git repository has no commit yet; commit first") from None


def remotes_of(repo: "Repo") -> dict[str, dict[str, Any]]:
    """Return the remotes of `repo` and which is the default, as sections of a DVC config.

    A revision's own config may be older than they are.
    """
    default = repo.config["core"].get("remote")
    return {"core": {"remote": default} if default else {}, "remote": dict(repo.config["remote"])}


def hashes_in_folder(repo: "Repo", md5: str) -> dict[str, str] | None:
    """Return the hash of each file in a folder that DVC tracks as `md5`; None where the cache has no good list."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    try:
        files = Tree.load(repo.cache.local, HashInfo("md5", md5))
    except (FileNotFoundError, ObjectFormatError):
        return None
    return {"/".join(name): str(found.value) for name, _, found in files}


class NoSuchOutputError(ValueError):
    """The revision has no such output, wherever one looks for it."""


def copy_of(commit: str, path: str, root: Path = Path(".")) -> Path:
    """Return where `fetch_output` puts the output `path` as of `commit`."""
    return root / CACHE_DIR / commit / path


def fetch_output(rev: str, path: str, root: Path = Path(".")) -> Path:
    """Return a local copy of the output `path` (a file or a folder, such as models/classifier) as of revision `rev`.

    The copy comes from the DVC cache, or else from the default remote, and is kept under .cache/revisions.

    Raises:
        NoSuchOutputError: the revision has no such output.
        ValueError: there is no such revision, its output is neither in the cache nor in the remote, or `path` leads out
            of the repository.

    """
    if Path(path).is_absolute() or ".." in Path(path).parts:  # joined to the copies' folder it would lead out of it
        raise ValueError(
            f"{path!r} is no path of revision {rev!r}; valid are paths relative to the repository's root, such as"
            " models/classifier"
        )
    commit = resolve(rev, root)
    target = copy_of(commit, path, root)
    if not target.exists():
        from dvc.api import DVCFileSystem

        try:
            with open_repository(root) as repo:
                source, remotes = path_in_git(repo, path), remotes_of(repo)
            files = DVCFileSystem(str(root), rev=commit, subrepos=True, config=remotes)
            if not _was_made(files, source):
                raise NoSuchOutputError(f"revision {rev!r} has no {path}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
                copy = Path(scratch) / target.name
                files.get(source, str(copy), recursive=True)
                try:
                    copy.rename(target)
                except OSError:
                    if not target.exists():  # else another command has fetched the same, and may read it already
                        raise
        except NoSuchOutputError:
            raise
        except Exception as error:  # DVC's index and each kind of remote have exceptions of their own
            if isinstance(error, OSError) and error.errno in _LOCAL_ERRORS:
                raise
            raise ValueError(
                f"revision {rev!r} has no {path} in the DVC cache or its remote ({error}); `dvc fetch` or `dvc exp"
                " pull` it first"
            ) from None
    return target


def _was_made(files: "DVCFileSystem", path: str) -> bool:
    """Tell whether the revision of `files` holds `path`, and not only a stage that has yet to make it."""
    if not files.exists(path):
        return False
    entry = files.info(path).get("dvc_info", {}).get("entry")
    return entry is None or entry.hash_info is not None
