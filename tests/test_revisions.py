"""Outputs of other revisions, where there are none."""

import subprocess
from pathlib import Path

import pytest

from apps.experiments import finished_experiments
from apps.revisions import fetch_output, resolve


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
    root = Path(__file__).resolve().parents[1]
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{root}", str(tmp_path / "clone")], check=True)
    with pytest.raises(ValueError, match="'HEAD' has no models/onnx in the DVC cache or its remote .* `dvc fetch`"):
        fetch_output("HEAD", "models/onnx", tmp_path / "clone")
