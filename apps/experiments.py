"""Which DVC experiments started from HEAD there are, and what became of those that have no result."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from apps.revisions import open_repository

if TYPE_CHECKING:
    from dvc.repo import Repo


def finished_experiments(root: Path = Path(".")) -> dict[str, str]:
    """Return the commits of HEAD's experiments by their names, the oldest first.

    DVC saves an experiment under refs/exps only once all of its stages have succeeded. A branch or a tag may have its
    name, too.
    """
    from dvc.repo.experiments.utils import exp_refs_by_baseline

    with open_repository(root) as repo:
        head = _head(repo)
        commits = {ref.name: repo.scm.get_ref(str(ref)) for ref in exp_refs_by_baseline(repo.scm, {head})[head]}
        saved = {name: repo.scm.resolve_commit(commit).commit_time for name, commit in commits.items()}
    return {name: commits[name] for name in sorted(saved, key=lambda name: (saved[name], name))}


def _head(repo: "Repo") -> str:
    from scmrepo.exceptions import SCMError

    try:
        return str(repo.scm.get_rev())
    except SCMError:
        raise ValueError("the Git repository has no commit yet; commit first") from None


def unfinished_experiments() -> dict[str, str]:
    """Return, by name, the fate and the log of each experiment of HEAD that failed, is running or waits."""
    with open_repository() as repo:
        queue = repo.experiments.celery_queue
        if not Path(queue.wdir).is_dir():
            return {}
        head = _head(repo)
        found = [
            *(("failed", done.entry) for done in queue.iter_failed()),
            *(("has not finished", entry) for entry in queue.iter_active()),
            *(("waits in the queue (`dvc queue start` runs it)", entry) for entry in queue.iter_queued()),
        ]
        lines = {}
        for fate, entry in found:
            if entry.baseline_rev == head:
                name = entry.name or entry.stash_rev[:7]
                process = queue.proc.get(entry.stash_rev)
                lines[name] = f"experiment {name} {fate}"
                if process:
                    lines[name] += f": `dvc queue logs {name}`, or {os.path.relpath(process.stdout)}"
        return lines
