"""Which DVC experiments started from HEAD there are, and what became of those that have no result."""

import os
from pathlib import Path

from apps.revisions import open_repository


def finished_experiments(root: Path = Path(".")) -> list[str]:
    """Return the names of HEAD's experiments, the oldest first.

    DVC saves an experiment under refs/exps only once all of its stages have succeeded.
    """
    from dvc.repo.experiments.utils import exp_refs_by_baseline

    with open_repository(root) as repo:
        head = repo.scm.get_rev()
        refs = exp_refs_by_baseline(repo.scm, {head})[head]
        saved = {ref.name: repo.scm.resolve_commit(repo.scm.get_ref(str(ref))).commit_time for ref in refs}
    return sorted(saved, key=lambda name: (saved[name], name))


def unfinished_experiments(root: Path = Path(".")) -> dict[str, str]:
    """Return, by name, the fate and the log of each experiment of HEAD that failed, is running or waits."""
    with open_repository(root) as repo:
        queue = repo.experiments.celery_queue
        if not Path(queue.wdir).is_dir():
            return {}
        head = repo.scm.get_rev()
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
                    lines[name] += f": `dvc queue logs {name}`, or {os.path.relpath(process.stdout, root)}"
        return lines
