"""What the tests of sharing stand on: copies and clones of the finished project, a real S3 server, a real sshd.

A plugin, not a module to import from (PYTEST_DONT_REWRITE): a test module names it in `pytest_plugins`, and
the fixtures give the rest.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.project_fixtures import Clone, Project, clone
from tests.remote_servers import S3Server, SshServer

pytest_plugins = ["tests.project_fixtures"]


@pytest.fixture(scope="session")
def author_in(finished_project: Project) -> Callable[[Path], Clone]:
    """A function that puts a copy of the author's working copy, cache included, into a folder beside its Git origin."""

    def make(folder: Path) -> Clone:
        path, git_url = folder / "author", folder / "project.git"
        shutil.copytree(finished_project.author.path, path, symlinks=True)
        shutil.copytree(finished_project.git_url, git_url)
        copy = Clone(path, finished_project.author.env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})
        copy.git("remote", "set-url", "origin", str(git_url))
        return copy

    return make


@pytest.fixture
def author(author_in: Callable[[Path], Clone], tmp_path: Path) -> Clone:
    """A copy of the author's working copy, cache included, with a Git origin of its own."""
    return author_in(tmp_path)


@pytest.fixture
def clone_of(tmp_path: Path) -> Callable[[Clone, str], Clone]:
    """A function that clones what a working copy's origin has into a new folder of that name."""

    def make(source: Clone, name: str) -> Clone:
        return clone(Path(source.git("remote", "get-url", "origin")), tmp_path / name, source.env)

    return make


@pytest.fixture(scope="session")
def plain_repository_in(isolated_env: dict[str, str]) -> Callable[[Path], Clone]:
    """A function that makes a DVC repository with nothing in it in a folder, beside its Git origin."""

    def make(folder: Path) -> Clone:
        path, git_url = folder / "plain", folder / "plain.git"
        path.mkdir()
        subprocess.run(["git", "init", "--quiet", "--bare", str(git_url)], env=isolated_env, check=True)
        repository = Clone(path, isolated_env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})
        repository.git("init", "--quiet")
        repository.git("remote", "add", "origin", str(git_url))
        repository.dvc("init", "--quiet")
        return repository

    return make


@pytest.fixture
def plain_repository(plain_repository_in: Callable[[Path], Clone], tmp_path: Path) -> Clone:
    """A DVC repository with a Git origin and nothing in it: where a fault of a remote needs no pipeline."""
    return plain_repository_in(tmp_path)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, isolated_env: dict[str, str]) -> Iterator[S3Server]:
    """A running S3 server, shared: a test keeps to a prefix of its own, and never stops it."""
    with S3Server(tmp_path_factory.mktemp("s3"), isolated_env) as server:
        yield server


@pytest.fixture
def own_s3_server(tmp_path: Path, isolated_env: dict[str, str]) -> Iterator[S3Server]:
    """A running S3 server of this test alone, to kill and start again."""
    with S3Server(tmp_path / "s3", isolated_env) as server:
        yield server


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A running sshd; skips where openssh-server is not installed."""
    if SshServer.program() is None:
        pytest.skip("no sshd: install openssh-server to test SSH remotes")
    with SshServer(tmp_path_factory.mktemp("ssh")) as server:
        yield server
