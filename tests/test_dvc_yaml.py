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
