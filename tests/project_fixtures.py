"""A small copy of this repository whose whole pipeline has run, made once in a run of the tests.

A plugin that a test module names in `pytest_plugins`, and imports from (PYTEST_DONT_REWRITE). Nothing leaves the
machine; no setting of the user's Git, DVC, AWS or SSH is read.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.remote_servers import S3Server
from tests.tiny_encoder import write_bert

ROOT = Path(__file__).parent.parent
STAGES = ("encoder", "prepare", "tokenize", "train", "calibrate", "baselines", "evaluate", "card", "export")
OFFICIAL_TEST = "official_test.csv"
_LEFT_OUT = ("tests/", "benchmarks/", "metrics/", "dvc.lock")


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
            timeout=600,
        )
        assert (done.returncode != 0) is fails, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def git(self, *arguments: str, fails: bool = False) -> str:
        """Run Git."""
        return self.run("git", *arguments, fails=fails).strip()

    def dvc(self, *arguments: str, fails: bool = False, env: dict[str, str] | None = None) -> str:
        """Run DVC."""
        return self.run("python", "-m", "dvc", *arguments, fails=fails, env=env)

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def edit_params(self, **sections: dict[str, object]) -> None:
        """Change settings in params.yaml; comments are lost."""
        path = self.path / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, settings in sections.items():
            params[section] |= settings
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

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


def clone(url: Path, path: Path, env: dict[str, str]) -> Clone:
    """Return a fresh clone with an empty cache."""
    subprocess.run(["git", "clone", "--quiet", str(url), str(path)], env=env, check=True)
    # A folder of its own, so that two clones share nothing but their remotes.
    return Clone(path, env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})


def stages_run(output: str) -> list[str]:
    """Return the stages that a `dvc repro` ran, in the order of STAGES: DVC is free to order independent ones."""
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
    return sorted(ran, key=STAGES.index)


@dataclass(frozen=True)
class Project:
    """The finished project: a bare Git repository to clone, and the working copy it was pushed from. Change neither.

    `printed` is what the `dvc repro` that made it printed.
    """

    author: Clone
    git_url: Path
    printed: str


@pytest.fixture(scope="session")
def isolated_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the tools of this one and none of its user's settings or credentials."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@localhost\n[init]\n\tdefaultBranch = main\n"
    )
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "HF_HUB_OFFLINE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "2",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def finished_project(shared_folder: Path, isolated_env: dict[str, str]) -> Project:
    """This repository with a tiny encoder and few rows, reproduced and pushed to a bare repository.

    It has no DVC remote yet: a test clones it, or copies the author's working copy, and adds one.
    """
    folder = shared_folder / "finished-project"
    path, git_url, printed = folder / "author", folder / "project.git", folder / "printed"
    author = Clone(path, isolated_env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})
    with FileLock(f"{folder}.lock"):  # the first worker makes the project, the others wait for it
        if not printed.exists():  # written last
            shutil.rmtree(folder, ignore_errors=True)  # another worker failed to make it
            _copy_repository(path)
            subprocess.run(["git", "init", "--quiet", "--bare", str(git_url)], env=isolated_env, check=True)
            author.git("init", "--quiet")
            author.git("remote", "add", "origin", str(git_url))
            _shrink(author)
            output = author.dvc("repro")
            author.commit("Project, reproduced")
            author.git("push", "--quiet", "--set-upstream", "origin", "main")
            printed.write_text(output, encoding="utf-8")
    return Project(author, git_url, printed.read_text(encoding="utf-8"))


def _copy_repository(target: Path) -> None:
    """Copy the files that Git tracks, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(_LEFT_OUT):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def _shrink(project: Clone) -> None:
    """Give the project an encoder, rows and settings with which its pipeline runs in seconds."""
    path = project.path / "data/raw/driver_intents.csv"
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([header, *rows[::48]]), encoding="utf-8")
    official = "text,intent\nopen the sunroof now,no_intent\nwindow down on my side,driver_window_down\n"
    (project.path / OFFICIAL_TEST).write_text(official, encoding="utf-8")
    write_bert(project.path / "encoders/tiny")
    project.edit_params(
        encoder={"name": "encoders/tiny", "revision": None},
        prepare={"test_source": OFFICIAL_TEST},
        tokenize={"max_length": 32},
        train={"num_epochs": 2, "min_steps": 0, "precision": "fp32"},
        tracking={"report_to": "none"},
        evaluate={"bootstrap_samples": 100},
    )
