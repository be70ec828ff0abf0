"""Fixtures shared by the tests: a tiny encoder and a small data set, both made on the spot."""

import csv
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.tiny_encoder import write_bert
from tests.warm_python import install

REPOSITORY = Path(__file__).resolve().parents[1]
# For programs that a test starts: a user's own commit.gpgsign or DVC remote would change what they do.
WITHOUT_USERS_SETTINGS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "DVC_GLOBAL_CONFIG_DIR": "/nonexistent",  # not os.devnull, which DVC fails on
    "DVC_SYSTEM_CONFIG_DIR": "/nonexistent",
}
# The files that take longest go first: the workers of pytest-xdist get whole files, and one begun late would end alone.
LONGEST = (
    "test_pipeline",
    "test_exporting",
    "test_sharing",
    "test_remote_faults",
    "test_export_stage",
    "test_demo_browser",
    "test_demo_limits",
    "test_resuming",
    "test_distributed",
    "test_experiments",
    "test_predict_places",
    "test_training",
    "test_adversarial",
    "test_adapters",
    "test_methods",
    "test_demo",
    "test_self_training",
    "test_compare",
    "test_verify",
)


def pytest_configure(config):
    if "PYTEST_XDIST_WORKER" in os.environ:  # has inherited PATH
        return
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if getattr(config.option, "numprocesses", None) and hasattr(os, "pidfd_open"):  # many tests, on Linux
        stack = ExitStack()
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="warm-python-"))
        server = stack.enter_context(install(Path(folder)))
        stack.callback(server.kill)
        config.add_cleanup(stack.close)


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def made_once(folder, make):
    """Return `folder`, which the first worker of a run of the tests that asks for it has made. Never write into it."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # another worker failed to make it
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """Folder of this run of the tests that the workers of pytest-xdist have in common: lock what you make there."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """Folder of a random BERT (32 wide, 40 positions). Never write into it."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    write_bert(folder)
    return folder


@pytest.fixture(scope="session")
def driver_texts():
    """(text, intent) of every row of the repository's own data."""
    with (REPOSITORY / "data/raw/driver_intents.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["intent"]) for row in csv.DictReader(file)]


@pytest.fixture
def default_params():
    """All of params.yaml but for min_steps, to change and write elsewhere."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["min_steps"] = 0  # tiny data would be passed over a hundred times
    return params


@pytest.fixture
def workspace(tmp_path, monkeypatch, default_params):
    """Return a function that changes settings in the params.yaml of an empty working directory."""
    monkeypatch.chdir(tmp_path)
    default_params["evaluate"]["behaviour_pairs"] = "data/none"  # there are none

    def write_params(section, **changes):
        default_params[section] |= changes
        Path("params.yaml").write_text(yaml.safe_dump(default_params), encoding="utf-8")

    return write_params


@pytest.fixture
def write_csv(tmp_path):
    """Return a function that writes rows under a header as a CSV file and returns its path."""

    def write(name, header, rows):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write
