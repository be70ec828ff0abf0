"""dvc.yaml lists what the stages read: their modules, their settings, their templates."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from intents.params import Params
from tests.conftest import REPOSITORY

DVC_YAML = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
OURS = ("intents", "stages", "apps")
UNDECLARED_SECTIONS = {"tracking", "runtime"}  # cannot change a result, so no stage depends on them


def module_file(module: str) -> Path | None:
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (REPOSITORY / candidate).is_file():
            return candidate
    return None


def import_closure(module: str, found: set[str] | None = None) -> set[str]:
    found = set() if found is None else found
    path = module_file(module)
    if path is None or path.as_posix() in found:
        return found
    found.add(path.as_posix())
    if "." in module:
        import_closure(module.rpartition(".")[0], found)
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in OURS:
                import_closure(name, found)
    return found


@pytest.mark.parametrize("stage", DVC_YAML["stages"])
def test_declared_modules_are_the_import_closure(stage):
    declared = {dep for dep in DVC_YAML["stages"][stage]["deps"] if dep.endswith(".py")}
    assert declared == import_closure(f"stages.{stage}")


@pytest.mark.parametrize("stage", DVC_YAML["stages"])
def test_declared_params_are_the_keys_read(stage):
    module = importlib.import_module(f"stages.{stage}")
    models = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Params) and value.__module__ == module.__name__
    ]
    section_of = {model: model.__name__.removesuffix("Params").lower() for model in models}
    read = {section for section in section_of.values() if section not in UNDECLARED_SECTIONS}
    read |= set(getattr(module, "ALSO_READS", ()))
    assert set(DVC_YAML["stages"][stage]["params"]) == read
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for model, section in section_of.items():
        assert set(model.model_fields) == set(params[section]), section


def keys_taken(tree):
    """Return the dotted names that a module takes out of what `read_params` returned."""
    sources = {"read_params()"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets, values = [node.targets[0]], [node.value]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                targets, values = node.targets[0].elts, node.value.elts
            pairs = zip(targets, values, strict=True)
            sources |= {ast.unparse(target) for target, value in pairs if ast.unparse(value) == "read_params()"}
    taken = set()
    for node in ast.walk(tree):
        keys = []
        while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            keys.insert(0, node.slice.value)
            node = node.value
        if keys and ast.unparse(node) in sources:
            taken.add(".".join(keys))
    return taken


@pytest.mark.parametrize("stage", DVC_YAML["stages"])
def test_what_a_stage_takes_from_other_sections_is_declared(stage):
    declared = set(DVC_YAML["stages"][stage]["params"])
    taken = keys_taken(ast.parse((REPOSITORY / f"stages/{stage}.py").read_text(encoding="utf-8")))
    for name in taken:
        section, _, key = name.partition(".")
        assert {name, section} & declared or (not key and any(each.startswith(f"{name}.") for each in declared)), name
    assert taken or stage not in ("evaluate", "card")


@pytest.mark.parametrize("stage", DVC_YAML["stages"])
def test_the_data_that_a_stage_names_is_declared(stage):
    kinds = [DVC_YAML["stages"][stage].get(kind, []) for kind in ("deps", "outs", "metrics", "plots")]
    listed = [entry if isinstance(entry, str) else next(iter(entry)) for kind in kinds for entry in kind]
    constants = vars(importlib.import_module(f"stages.{stage}")).values()
    named = {value.as_posix() for value in constants if isinstance(value, Path)} - {"data/none", "params.yaml"}
    assert named
    for path in named:
        assert any(f"{entry}/".startswith(f"{path}/") or path.startswith(f"{entry}/") for entry in listed), path


@pytest.mark.parametrize("stage", DVC_YAML["stages"])
def test_the_files_that_settings_name_are_declared_by_the_stage_that_reads_them(stage):
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for name, value in params.get(stage, {}).items():
        if isinstance(value, str) and (REPOSITORY / value).is_file():
            assert f"${{{stage}.{name}}}" in DVC_YAML["stages"][stage]["deps"], name


def test_no_stage_imports_another_stage_or_an_app():
    for stage in DVC_YAML["stages"]:
        others = {path for path in import_closure(f"stages.{stage}") if path.startswith(("stages/", "apps/"))}
        assert others == {"stages/__init__.py", f"stages/{stage}.py"}


def test_the_library_imports_neither_stages_nor_apps():
    for path in (REPOSITORY / "intents").rglob("*.py"):
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        assert not {name for name in import_closure(module) if name.startswith(("stages/", "apps/"))}, path


@pytest.mark.parametrize("stage", DVC_YAML["stages"])
def test_declared_templates_are_those_that_the_modules_name(stage):
    code = "".join((REPOSITORY / path).read_text(encoding="utf-8") for path in import_closure(f"stages.{stage}"))
    named = {f"intents/templates/{name}" for name in re.findall(r'"([\w.]+\.j2)"', code)}
    assert {dep for dep in DVC_YAML["stages"][stage]["deps"] if dep.endswith(".j2")} == named
