"""What the tests of sharing stand on: a small finished project, its clones, a real S3 server, a real sshd.

A plugin, not a module to import from (PYTEST_DONT_REWRITE): a test module names it in `pytest_plugins`, and
the fixtures give the rest. Nothing leaves the machine; no setting of the user's Git, DVC, AWS or SSH is read.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.remote_servers import S3Server, SshServer
from tests.tiny_encoder import write_encoder, write_examples

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Clone:
    """A working copy, and the environment its commands run in."""

    path: Path
    env: dict[str, str]

    def run(self, *command: str, fails: bool = False, env: dict[str, str] | None = None) -> str:
        """Run `command` at the root of the clone and return what it printed; it must end as expected."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.env | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert (done.returncode != 0) is fails, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def git(self, *arguments: str, fails: bool = False) -> str:
        """Run Git."""
        return self.run("git", *arguments, fails=fails).strip()

    def dvc(self, *arguments: str, fails: bool = False, env: dict[str, str] | None = None) -> str:
        """Run DVC."""
        return self.run(sys.executable, "-m", "dvc", *arguments, fails=fails, env=env)

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def add_s3(self, server: S3Server, prefix: str) -> None:
        """Make `prefix` on `server` the default remote, as the README says; credentials stay out of Git."""
        settings = {"url": f"s3://{server.bucket}/{prefix}", "endpointurl": server.url, "verify": "true"}
        config = self.path / ".dvc/config"
        before = config.read_text().removeprefix("[core]\n")
        config.write_text(f"[core]\n    remote = store\n{before}\n{_section(settings)}")
        self.set_keys(server)

    def set_keys(self, server: S3Server) -> None:
        """Give this clone the credentials of `server`."""
        keys = {"access_key_id": server.access_key, "secret_access_key": server.secret_key}
        (self.path / ".dvc/config.local").write_text(_section(keys))


def _section(settings: dict[str, str]) -> str:
    """Return what `dvc remote add` and `dvc remote modify` write, without a process for each."""
    return "['remote \"store\"']\n" + "".join(f"    {name} = {value}\n" for name, value in settings.items())


@dataclass(frozen=True)
class Project:
    """The finished project: a bare Git repository to clone, and the working copy it was pushed from."""

    author: Clone
    git_url: Path

    def clone(self, path: Path) -> Clone:
        """Return a fresh clone with an empty cache."""
        return _clone(self.git_url, path, self.author.env)


def _clone(url: Path, path: Path, env: dict[str, str]) -> Clone:
    subprocess.run(["git", "clone", "--quiet", str(url), str(path)], env=env, check=True)
    # A folder of its own, so that two clones share nothing but their remotes.
    return Clone(path, env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})


@pytest.fixture(scope="session")
def isolated_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the tools of this one and none of its user's settings or credentials."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@localhost\n[init]\n\tdefaultBranch = main\n"
    )
    return {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "HF_HUB_OFFLINE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",
        "OMP_NUM_THREADS": "2",
    }


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory, isolated_env: dict[str, str]) -> Project:
    """This repository with a tiny encoder and few rows, reproduced once and pushed to a bare repository.

    It has no DVC remote yet: a test clones it, or copies the author's working copy, and adds one.
    """
    folder = tmp_path_factory.mktemp("project")
    path, git_url = folder / "author", folder / "project.git"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "metrics/", "data/raw/", "dvc.lock")):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
    write_examples(path / "data/raw/examples.csv")
    write_encoder(path / "encoders/tiny", path / "data/raw/examples.csv")
    _shrink(path / "params.yaml")
    author = Clone(path, isolated_env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})
    subprocess.run(["git", "init", "--quiet", "--bare", str(git_url)], env=isolated_env, check=True)
    author.git("init", "--quiet")
    author.git("remote", "add", "origin", str(git_url))
    author.dvc("repro")
    author.commit("Project, reproduced")
    author.git("push", "--quiet", "--set-upstream", "origin", "main")
    return Project(author, git_url)


def _shrink(path: Path) -> None:
    params = yaml.safe_load(path.read_text())
    params["encoder"] |= {"name": "encoders/tiny", "revision": None}
    params["prepare"] |= {"source": "data/raw/examples.csv", "exclude_intents": []}
    params["train"] |= {"num_epochs": 1}
    params["tracking"] |= {"report_to": "none"}
    params["evaluate"] |= {"bootstrap_samples": 100}
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture
def author(finished_project: Project, tmp_path: Path) -> Clone:
    """A copy of the author's working copy, cache included, with a Git origin of its own."""
    path, git_url = tmp_path / "author", tmp_path / "project.git"
    shutil.copytree(finished_project.author.path, path, symlinks=True)
    shutil.copytree(finished_project.git_url, git_url)
    copy = Clone(path, finished_project.author.env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})
    copy.git("remote", "set-url", "origin", str(git_url))
    return copy


@pytest.fixture
def clone_of(tmp_path: Path) -> Callable[[Clone, str], Clone]:
    """A function that clones what a working copy's origin has into a new folder of that name."""

    def make(source: Clone, name: str) -> Clone:
        return _clone(Path(source.git("remote", "get-url", "origin")), tmp_path / name, source.env)

    return make


@pytest.fixture
def plain_repository(tmp_path: Path, isolated_env: dict[str, str]) -> Clone:
    """A DVC repository with a Git origin and nothing in it: where a fault of a remote needs no pipeline."""
    path, git_url = tmp_path / "plain", tmp_path / "plain.git"
    path.mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", str(git_url)], env=isolated_env, check=True)
    repository = Clone(path, isolated_env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})
    repository.git("init", "--quiet")
    repository.git("remote", "add", "origin", str(git_url))
    repository.dvc("init", "--quiet")
    return repository


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
