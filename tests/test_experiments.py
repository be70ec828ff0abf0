"""Experiments in the workspace, the queue and a temporary folder: same code, same result, no half results."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.compare_fixtures import make_tiny_repository, run

pytest_plugins = ["tests.compare_fixtures"]


@pytest.fixture
def repository(fake_repository, tmp_path):
    """A copy, that a test may change, of the repository whose one stage makes up its answers."""
    return Path(shutil.copytree(fake_repository, tmp_path / "copy", symlinks=True))


def show(folder, rev, path):
    return run(folder, "git", "show", f"{experiment_commit(folder, rev)}:{path}")


def experiment_commit(folder, name):
    refs = run(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps/").splitlines()
    (ref,) = [ref for ref in refs if ref.split("/")[-1] == name]
    return run(folder, "git", "rev-parse", ref).strip()


def queue_log(folder, name, sentence, seconds=60):
    """Wait until the log of the running experiment `name` says `sentence`, and return the log."""
    for _ in range(seconds * 5):
        logs = [path.read_text() for path in (folder / ".dvc/tmp/exps/run").glob("*/*.out")]
        found = [text for text in logs if sentence in text]
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"{name} never said {sentence!r}: {logs}")


def names_compared(folder):
    found = json.loads(run(folder, "apps.compare", "--json"))
    return [result["name"] for group in found["groups"] for result in group["results"]], found["notes"]


@pytest.mark.slow
def test_workspace_queue_and_temporary_folder_give_the_same_bytes(tmp_path):
    folder = make_tiny_repository(tmp_path)
    setting = ("-S", "train.learning_rate=0.001", "-S", "evaluate.bootstrap_samples=200")

    def forget():
        """Back to HEAD, with no run cache that would save the next run the work."""
        run(folder, "git", "checkout", "-q", ".")
        run(folder, "dvc", "checkout", "-q")
        shutil.rmtree(folder / ".dvc/cache/runs")

    forget()
    run(folder, "dvc", "exp", "run", "-q", "-n", "here", *setting)
    forget()
    run(folder, "dvc", "exp", "run", "-q", "--temp", "-n", "temp", *setting)
    forget()
    run(folder, "dvc", "exp", "run", "--queue", "-n", "queued", *setting)
    run(folder, "dvc", "exp", "run", "--queue", "-n", "other", "-S", "train.seed=1")
    run(folder, "dvc", "queue", "start", "-j", "2")
    wait_for_queue(folder, {"queued", "other"})

    made = {name: outputs_of(folder, name) for name in ("here", "temp", "queued", "other")}
    assert made["here"] == made["temp"] == made["queued"]
    assert made["here"]["models/classifier"] != made["other"]["models/classifier"]
    assert made["here"]["data/tokenized/train.parquet"] == made["other"]["data/tokenized/train.parquet"]
    compared, notes = names_compared(folder)
    assert compared == ["HEAD", "other", "here"]
    assert len([note for note in notes if "is the same as here" in note]) == 2


def outputs_of(folder, rev):
    """Return the hash of every output of an experiment but those metrics that hold its speed."""
    lock = yaml.safe_load(show(folder, rev, "dvc.lock"))
    outputs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    del outputs["metrics/train.json"], outputs["metrics/baselines.json"]
    return outputs


def wait_for_queue(folder, names, seconds=240):
    for _ in range(seconds):
        status = run(folder, "dvc", "queue", "status")
        ended = {line.split()[1] for line in status.splitlines() if line.endswith(("Success", "Failed"))}
        if names <= ended:
            return status
        time.sleep(1)
    raise AssertionError(status)


def test_a_queued_experiment_runs_its_own_code_and_not_the_workspaces_nor_the_installed_one(repository):
    """The stage and the library that it imports are edited, queued, and edited again before the queue starts.

    `intents` is also an installed package: an editable install points to a workspace.
    """
    library, model = repository / "intents/files.py", repository / "model.py"
    evaluate = yaml.safe_load((repository / "dvc.yaml").read_text())
    evaluate["stages"]["evaluate"]["cmd"] = "python -m evaluate"
    (repository / "dvc.yaml").write_text(yaml.safe_dump(evaluate))
    original = library.read_text()
    edited = original.replace("json.dumps(value, indent=2", 'json.dumps({**value, "edited": True}, indent=2')
    assert edited != original
    library.write_text(edited)
    model.write_text("SHIFT = 0.123\n")
    run(repository, "dvc", "exp", "run", "--queue", "-n", "edited")
    library.write_text("raise SystemExit('the workspace ran')\n")
    model.write_text("raise SystemExit('the workspace ran')\n")
    run(repository, "dvc", "queue", "start")
    assert "Success" in wait_for_queue(repository, {"edited"})
    metrics = json.loads(show(repository, "edited", "metrics/evaluate.json"))
    assert metrics["edited"]
    assert metrics["test"]["accuracy"] > 0.88  # the quality is 0.8
    assert show(repository, "edited", "model.py") == "SHIFT = 0.123\n"
    assert model.read_text() == "raise SystemExit('the workspace ran')\n"


def test_a_failed_experiment_takes_no_part_and_its_log_is_named(repository):
    run(repository, "dvc", "exp", "run", "--queue", "-n", "fails", "-S", "train.quality=2")
    run(repository, "dvc", "exp", "run", "--queue", "-n", "works", "-S", "train.quality=0.9")
    run(repository, "dvc", "exp", "run", "--run-all")
    names, (note, *_) = names_compared(repository)
    assert names == ["HEAD", "works"]
    assert note.startswith("experiment fails failed: `dvc queue logs fails`, or .dvc/tmp/exps/run/")
    log = repository / note.split(", or ")[1]
    assert "train.quality 2.0 is more than 1" in log.read_text()
    message = run(repository, "apps.compare", "fails", fails=True)
    assert message.startswith("error: experiment fails failed: `dvc queue logs fails`")
    assert "1 experiment(s) left out" in run(repository, "apps.compare", "--strict", fails=True)


@pytest.mark.parametrize("style", [[], ["--temp"]])
def test_an_experiment_that_fails_outside_the_queue_leaves_nothing_to_compare(repository, style):
    message = run(repository, "dvc", "exp", "run", *style, "-n", "fails", "-S", "train.quality=2", fails=True)
    assert "train.quality 2.0 is more than 1" in message
    names, notes = names_compared(repository)
    assert names == ["HEAD"]
    if not style:
        assert "workspace: params.yaml says train.quality: 2, but the results were made with 0.8" in notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["queue kill", "SIGKILL"])
def test_a_killed_experiment_takes_no_part(repository, how):
    run(repository, "dvc", "exp", "run", "--queue", "-n", "killed", "-S", "train.seconds=100")
    run(repository, "dvc", "queue", "start")
    queue_log(repository, "killed", "> python evaluate.py")
    names, notes = names_compared(repository)
    assert names == ["HEAD"]
    assert notes[0].startswith("experiment killed has not finished: `dvc queue logs killed`")
    if how == "SIGKILL":
        (info,) = (repository / ".dvc/tmp/exps/run").glob("*/*.json")
        os.kill(json.loads(info.read_text())["pid"], signal.SIGKILL)
    else:
        run(repository, "dvc", "queue", "kill", "--force", "killed")
    wait_for_queue(repository, {"killed"})
    names, notes = names_compared(repository)
    assert names == ["HEAD"]
    assert notes[0].startswith("experiment killed failed: `dvc queue logs killed`")


@pytest.mark.slow
def test_a_sweep_over_seeds_ends_in_one_group_with_its_failures_reported(repository):
    """What `make sweep-seeds` runs."""
    run(repository, "dvc", "exp", "run", "--queue", "-S", "train.seed=range(0,3)")
    run(repository, "dvc", "exp", "run", "--queue", "-n", "fails", "-S", "train.quality=2")
    run(repository, "dvc", "exp", "run", "--run-all", "-j", "2")
    found = json.loads(run(repository, "apps.compare", "--json"))
    (group,) = found["groups"]
    assert [result["seeds"]["train.seed"] for result in group["results"]] == [0, 1, 2]
    assert group["metrics"]["accuracy"]["low"] < group["metrics"]["accuracy"]["high"]
    assert [note.split()[:3] for note in found["notes"]][0] == ["experiment", "fails", "failed:"]
    assert "the same as HEAD" in found["notes"][1]
