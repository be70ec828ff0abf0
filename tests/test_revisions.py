"""Outputs of other revisions, where there are none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from apps.experiments import finished_experiments
from apps.revisions import NoSuchOutputError, fetch_output, resolve
from apps.verify import verify
from tests.conftest import REPOSITORY, WITHOUT_USERS_SETTINGS


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["plain folder", "Git without DVC", "DVC without Git"])
def test_without_a_repository_there_is_one_clear_error(tmp_path, kind):
    if kind == "Git without DVC":
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    elif kind == "DVC without Git":  # as a copy of the files has it
        (tmp_path / ".dvc").mkdir()
        (tmp_path / ".dvc/config").touch()
    message = f"other revisions need a Git repository with DVC; {tmp_path} is in none"
    for ask in (
        lambda: resolve("v1", tmp_path),
        lambda: fetch_output("v1", "models/classifier", tmp_path),
        lambda: finished_experiments(tmp_path),
    ):
        with pytest.raises(ValueError) as caught:
            ask()
        assert str(caught.value) == message


def test_an_output_that_is_in_no_cache_names_the_remedy(tmp_path):
    """In a clone of this repository: no cache, and no remote."""
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{REPOSITORY}", str(tmp_path / "clone")], check=True)
    with pytest.raises(ValueError, match="'HEAD' has no models/onnx in the DVC cache or its remote .* `dvc fetch`"):
        fetch_output("HEAD", "models/onnx", tmp_path / "clone")


def run_all(folder, *commands):
    environment = os.environ | WITHOUT_USERS_SETTINGS
    for command in commands:
        tool, *arguments = command.split()
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org") if tool == "git" else ()
        program = ["python", "-m", "dvc"] if tool == "dvc" else [tool]
        subprocess.run([*program, *who, *arguments], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """Repository with the output `model` in its cache; it has no remote. Never write into it."""
    folder = tmp_path_factory.mktemp("revisions") / "repository"
    (folder / "model").mkdir(parents=True)
    (folder / "model/weights").write_text("w")
    run_all(folder, "git init -q .", "dvc init -q", "dvc add -q model", "git add .", "git commit -qm model")
    return folder


@pytest.fixture
def with_model(master, tmp_path):
    """A copy of the repository that a test may change."""
    return Path(shutil.copytree(master, tmp_path / "repository", symlinks=True))


@pytest.mark.filterwarnings("default")
def test_a_revision_from_before_there_was_a_remote_is_fetched_and_verified_by_todays(with_model, tmp_path):
    run_all(with_model, "git tag before", f"dvc remote add -q -d store {tmp_path / 'store'}", "dvc push -q")
    shutil.rmtree(with_model / ".dvc/cache")
    assert (fetch_output("before", "model", with_model) / "weights").read_text() == "w"
    for remote in (None, "store"):
        assert verify("before", remote, root=with_model) == []
    shutil.rmtree(tmp_path / "store/files")
    (problem,) = verify("before", root=with_model)
    assert problem.startswith("model: the remote lacks 1 of its 1 object(s)")
    shutil.rmtree(tmp_path / "store")
    for repair in (False, True):  # which would fill the disk under the place where it is mounted
        with pytest.raises(ValueError, match="store does not exist; is it mounted"):
            verify("before", contents=repair, repair=repair, root=with_model)
    assert not (tmp_path / "store").exists()


@pytest.mark.filterwarnings("default")
def test_a_repository_without_a_commit_says_so(tmp_path):
    run_all(tmp_path, "git init -q .", "dvc init -q")
    with pytest.raises(ValueError, match="the Git repository has no commit yet; commit first"):
        finished_experiments(tmp_path)
    for name in ("HEAD", "x"):
        with pytest.raises(ValueError, match="no commit yet|no branch, tag, commit or experiment is called"):
            resolve(name, tmp_path)


@pytest.mark.filterwarnings("default")
def test_what_another_command_has_fetched_meanwhile_stays(with_model, monkeypatch):
    """It may be read already."""
    from dvc.api import DVCFileSystem

    get = DVCFileSystem.get

    def get_slowly(self, source, copy, **options):
        get(self, source, copy, **options)
        target = Path(copy).parents[1] / "model"
        target.mkdir()
        (target / "weights").write_text("w, read by the other")

    monkeypatch.setattr(DVCFileSystem, "get", get_slowly)
    target = fetch_output("HEAD", "model", with_model)
    assert (target / "weights").read_text() == "w, read by the other"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


@pytest.mark.filterwarnings("default")
def test_an_output_that_a_stage_has_yet_to_make_is_none(with_model):
    run_all(with_model, "dvc stage add -q -n export -o exported true", "git add .", "git commit -qm stage")
    with pytest.raises(NoSuchOutputError, match="'HEAD' has no exported"):
        fetch_output("HEAD", "exported", with_model)


@pytest.mark.filterwarnings("default")
def test_a_slip_in_the_config_of_dvc_is_one_clear_error(with_model):
    (with_model / ".dvc/config.local").write_text('["remote "store"]\n    url = /mnt/store\n')
    with pytest.raises(ValueError, match="config file error"):
        resolve("HEAD", with_model)
