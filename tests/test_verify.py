"""`python -m apps.verify` in a clone that has no data, as in a CI of the user's own."""

import io
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import yaml

from apps.verify import main
from intents.cli import run
from tests.project_fixtures import Clone
from tests.project_fixtures import clone as fresh_clone

pytest_plugins = ["tests.sharing_fixtures"]


@pytest.fixture(scope="module")
def finished_commit(author_in, tmp_path_factory):
    """A folder with `store`, the remote of a project that holds everything, and `ci`, a clone of it without data."""
    folder = tmp_path_factory.mktemp("verify")
    author = author_in(folder)
    author.dvc("remote", "add", "--default", "store", "../store")  # found in a copy of both, too
    author.commit("Remote")
    author.git("push", "--quiet")
    author.dvc("push")
    fresh_clone(folder / "project.git", folder / "ci", author.env)
    return folder


@pytest.fixture
def shared(finished_commit, isolated_env, tmp_path):
    """A clone without data and its remote, a shared folder: copies that a test may change."""
    for name in ("ci", "store"):
        shutil.copytree(finished_commit / name, tmp_path / name, symlinks=True)
    return Clone(tmp_path / "ci", isolated_env | {"DVC_SITE_CACHE_DIR": f"{tmp_path}.site"}), tmp_path / "store"


def verify(clone, *options, fails=False):
    """Return the lines that the command prints; in this process, for a new one computes for two seconds first."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.chdir(clone.path)
        for name in [name for name in os.environ if name not in clone.env]:
            patch.delenv(name)
        for name, value in clone.env.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["apps.verify", *options])
        with pytest.raises(SystemExit) as ended:
            run(main)
    assert (ended.value.code != 0) is fails, printed.getvalue()
    return printed.getvalue().splitlines()


def edit(clone, name, old, new):
    path = clone.path / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_a_finished_commit_passes_without_any_data_being_pulled(shared):
    clone, _ = shared
    command = clone.run("python", "-m", "apps.verify")
    assert command == "dvc.lock is current and the remote holds all it names\n"
    assert verify(clone, "--rev", "main", "--contents") == ["dvc.lock is current and the remote holds all it names"]
    assert not (clone.path / ".dvc/cache").exists()
    assert not (clone.path / "models").exists()


def test_every_way_in_which_the_lock_is_stale_is_one_line(shared):
    clone, _ = shared
    edit(clone, "intents/splitting.py", '"""', '"""Changed. ')
    edit(clone, "params.yaml", "num_mistakes: 50", "num_mistakes: 51")
    edit(clone, "dvc.yaml", "cmd: python -m stages.tokenize", "cmd: python -m  stages.tokenize")
    others = "      - data/tokenized/unlabelled.parquet\n    metrics"
    edit(clone, "dvc.yaml", f"      - data/tokenized/test.parquet\n{others}", others)
    edit(
        clone,
        "dvc.yaml",
        "      - intents/tracking.py\n",
        "      - intents/tracking.py\n      - intents/rows.py\n",
    )
    edit(clone, "metrics/train.json", "{", "{ ")
    remedy = "; run `dvc repro` and commit dvc.lock"
    problems = verify(clone, "--lock-only", fails=True)
    assert f"prepare: intents/splitting.py is modified since dvc.lock{remedy}" in problems
    assert f"evaluate: evaluate in params.yaml is modified since dvc.lock{remedy}" in problems
    assert f"tokenize: its cmd in dvc.yaml is not the one in dvc.lock{remedy}" in problems
    assert f"train: intents/rows.py is not in dvc.lock{remedy}" in problems
    assert f"train: metrics/train.json is modified since dvc.lock{remedy}" in problems
    assert any("data/tokenized/test.parquet does not exist" in problem for problem in problems)
    # What is committed is as good as before.
    assert verify(clone, "--rev", "HEAD", "--lock-only") == ["dvc.lock is current"]


def test_a_stage_that_read_something_else_than_was_written_is_named(shared):
    clone, _ = shared
    lock = yaml.safe_load((clone.path / "dvc.lock").read_text())
    lock["stages"]["encoder"]["outs"][0]["md5"] = f"{'f' * 32}.dir"
    (clone.path / "dvc.lock").write_text(yaml.safe_dump(lock))
    problems = verify(clone, "--lock-only", fails=True)
    wrong = "the models/encoder in dvc.lock that it read is not the one that encoder wrote"
    readers = [f"{stage}: {wrong}" for stage in ("tokenize", "train", "baselines", "card")]
    assert [problem.split(";")[0] for problem in problems] == readers


def test_a_source_that_dvc_tracks_alone_or_in_a_folder(author):
    """As README says of one's own data: dvc add."""
    (author.path / "my").mkdir()
    (author.path / "data/raw/driver_intents.csv").rename(author.path / "my/rows.csv")
    author.edit_params(prepare={"source": "my/rows.csv"})
    author.dvc("add", "--quiet", "my/rows.csv")
    author.dvc("repro", "--quiet", "prepare")
    author.dvc("commit", "--quiet", "--force", "evaluate", "card")
    assert verify(author, "--lock-only") == ["dvc.lock is current"]
    source = author.path / "my/rows.csv"
    source.write_text(source.read_text() + "open it a crack,no_intent,plain\n")
    stale = "prepare: my/rows.csv is modified since dvc.lock; run `dvc repro` and commit dvc.lock"
    assert verify(author, "--lock-only", fails=True) == [stale]  # edited, and not added yet
    author.dvc("add", "--quiet", "my/rows.csv")
    (problem,) = verify(author, "--lock-only", fails=True)
    assert problem.startswith(
        "prepare: the my/rows.csv in dvc.lock that it read is not the one that my/rows.csv.dvc wrote"
    )
    (author.path / "my/rows.csv.dvc").unlink()
    author.dvc("add", "--quiet", "my")
    author.dvc("repro", "--quiet", "prepare")
    author.commit("A folder")
    source.unlink()
    assert not [line for line in verify(author, "--lock-only", fails=True) if "my/" in line]  # it need not be pulled
    author.git("checkout", "--quiet", ".")
    author.dvc("checkout", "--quiet", "my")
    source.write_text(source.read_text() + "open it a bit,no_intent,plain\n")
    author.dvc("add", "--quiet", "my")
    author.commit("Other data, and no run")
    assert stale in verify(author, "--lock-only", "--rev", "HEAD", fails=True)
    assert stale not in verify(author, "--lock-only", "--rev", "HEAD~1", fails=True)


def test_what_dvc_imports_from_another_repository_is_none_of_this_remotes(plain_repository_in, tmp_path):
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
    theirs, ours = (plain_repository_in(tmp_path / name) for name in ("theirs", "ours"))
    (theirs.path / "rows.csv").write_text("text,intent\n")
    theirs.dvc("add", "--quiet", "rows.csv")
    theirs.commit("Rows")
    ours.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    ours.dvc("import", "--quiet", str(theirs.path), "rows.csv")
    ours.commit("Their rows")
    assert verify(ours) == ["dvc.lock is current and the remote holds all it names"]


def test_each_output_that_the_remote_lacks_is_one_line(shared):
    clone, store = shared
    shutil.rmtree(store / "files")
    problems = verify(clone, fails=True)
    assert {problem.split(":")[0] for problem in problems} >= {"models/encoder", "models/classifier"}
    assert all(": the remote lacks 1 of its 1 object(s), such as " in problem for problem in problems)


def test_a_damaged_list_of_files_is_a_line_and_a_dead_remote_hides_nothing_of_the_lock(shared):
    clone, store = shared
    lists = list(store.rglob("*.dir"))
    for path in lists:
        path.chmod(0o644)
        path.write_bytes(b"")
    problems = verify(clone, fails=True)
    assert problems and all(": the remote has a damaged copy of 1 of its 1 object(s)" in line for line in problems)
    edit(clone, "stages/evaluate.py", '"""', '"""Edited. ')
    found = verify(clone, "--remote", "nope", fails=True)
    assert any("stages/evaluate.py is modified since dvc.lock" in line for line in found)
    assert any("remote 'nope' doesn't exist" in line for line in found)


def test_a_lock_that_cannot_be_read_and_names_nobody_knows_are_errors_of_one_line(shared):
    clone, _ = shared
    assert "no branch, tag, commit or experiment is called 'nope'" in verify(clone, "--rev", "nope", fails=True)[0]
    assert "no branch, tag, commit or experiment is called ''" in verify(clone, "--rev", "", fails=True)[0]
    assert "remote 'nope' doesn't exist" in verify(clone, "--remote", "nope", fails=True)[0]
    edit(clone, "dvc.lock", "schema:", "<<<<<<< HEAD\nschema:")
    [message] = verify(clone, "--lock-only", fails=True)
    assert message.startswith("error: ") and "dvc.lock" in message


@pytest.mark.parametrize("value", [None, ""])
def test_a_path_that_is_none_is_named(author, value):
    author.edit_params(prepare={"test_source": value})
    [message] = verify(author, "--lock-only", fails=True)
    assert f"prepare.test_source must be the path of a file (data/none: none), got {value!r}" in message


def test_a_stage_that_was_never_run_is_named(shared):
    clone, _ = shared
    (clone.path / "dvc.lock").unlink()
    assert verify(clone, "--lock-only", fails=True) == [
        f"{stage}: not in dvc.lock; run `dvc repro` and commit dvc.lock"
        for stage in ("encoder", "prepare", "tokenize", "train", "calibrate", "baselines", "evaluate", "card", "export")
    ]
