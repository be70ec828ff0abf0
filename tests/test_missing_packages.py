"""A package that is not installed is named with the command that installs it."""

import importlib
import sys

import pytest
from fsspec.registry import _registry as stores

from intents.bulk.places import filesystem_of
from intents.bulk.ray_engine import ray_engine
from intents.tracking import start_tracker

WITH = r"pip install -c constraints.txt -e '\.\[{}\]'"


@pytest.mark.parametrize(
    ("package", "use", "message"),
    [
        ("ray", lambda folder: ray_engine([], folder, 3, "int8", 1), "--engine ray needs Ray: " + WITH.format("ray")),
        (
            "s3fs",
            lambda _: filesystem_of("s3://bucket/calls"),
            "s3://bucket/calls: s3:// needs a package that is not installed: " + WITH.format("s3"),
        ),
        (
            "tensorboard",
            lambda folder: start_tracker("tensorboard", "project", None, {}, folder),
            "tracking.report_to: tensorboard is not installed: " + WITH.format("tensorboard"),
        ),
        (
            "onnxruntime",
            lambda _: importlib.import_module("intents.runtime"),
            "onnxruntime is not installed: pip install numpy tokenizers onnxruntime",
        ),
    ],
    ids=["ray", "s3", "tensorboard", "runtime"],
)
def test_a_missing_package_gives_the_command_that_installs_it(monkeypatch, tmp_path, package, use, message):
    for imported in ("torch.utils.tensorboard", "intents.runtime"):  # by another test
        monkeypatch.delitem(sys.modules, imported, raising=False)
    monkeypatch.delitem(stores, "s3", raising=False)  # likewise
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises((ValueError, ModuleNotFoundError), match=message):
        use(tmp_path)
