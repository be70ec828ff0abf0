import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from apps.recipe import command, main, overrides
from intents.params import Params, load_params
from tests.compare_fixtures import ENVIRONMENT, REPOSITORY, run

pytest_plugins = ["tests.compare_fixtures"]
RECIPES = sorted(path.stem for path in (REPOSITORY / "recipes").glob("*.yaml"))
PARAMS = {"train": {"rate": 1, "layers": [1], "name": "a", "other": None}, "encoder": {"name": "x"}}


@pytest.fixture
def write_recipe(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_accepted_by_the_stages(monkeypatch, workspace, name):
    changed = yaml.safe_load((REPOSITORY / f"recipes/{name}.yaml").read_text(encoding="utf-8"))
    overrides(REPOSITORY / f"recipes/{name}.yaml", yaml.safe_load((REPOSITORY / "params.yaml").read_text()))
    for section, settings in changed.items():
        workspace(section, **settings)
        module = importlib.import_module(f"stages.{section}")
        load_params(section, vars(module)[f"{section.title()}Params"])
        assert issubclass(vars(module)[f"{section.title()}Params"], Params)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("bert")])
def test_recipes_pin_the_revision_of_the_hub(name):
    encoder = yaml.safe_load((REPOSITORY / f"recipes/{name}.yaml").read_text(encoding="utf-8"))["encoder"]
    assert len(encoder["revision"]) == 40


def test_values_are_written_in_dvcs_grammar(write_recipe):
    path = write_recipe('train: {rate: 3.0e-5, layers: [query, value], name: "it\'s, 12e4", other: null}\n')
    assert overrides(path, PARAMS) == [
        "train.rate=3e-05",
        "train.layers=['query','value']",
        r"train.name='it\'s, 12e4'",
        "train.other=null",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {rate: 2}", r"mine.yaml: params.yaml has no section 'trian'; it has: train, encoder"),
        ("train: {raet: 2}", r"mine.yaml: train.raet: unknown setting; train has: rate, layers, name, other"),
        ("train: 3", "mine.yaml: train must hold settings, found 3"),
        ("- train", "mine.yaml must hold sections of settings, found list"),
        ("train: {", "mine.yaml is not valid YAML"),
    ],
)
def test_a_recipe_that_does_not_fit_params_is_refused(write_recipe, text, message):
    with pytest.raises(ValueError, match=message):
        overrides(write_recipe(text), PARAMS)


def test_a_text_that_would_name_another_setting_is_refused(write_recipe):
    path = write_recipe("train: {name: 'pay ${x}'}\n")
    with pytest.raises(ValueError, match=r"'pay \$\{x\}': -S takes \$\{ for the name of another setting"):
        overrides(path, PARAMS)


def test_a_recipe_in_another_encoding_is_listed_and_named(monkeypatch, tmp_path, capsys):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/odd.yaml").write_bytes(b"# f\xfcr\ntrain:\n  seed: 1\n")
    (tmp_path / "params.yaml").write_text("train:\n  seed: 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recipe"])
    main()
    assert capsys.readouterr().out.startswith("odd ")
    with pytest.raises(ValueError, match="recipes/odd.yaml is not UTF-8"):
        command("odd", [])


def test_an_unknown_recipe_is_named_with_those_there_are(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(
        ValueError, match="recipes has no recipe 'bert'; it has: bert-base-full, bert-large-qlora, many-intents"
    ):
        command("bert", [])


def test_away_from_the_root_it_says_where_to_run_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="recipes does not exist: run this from the root of the repository"):
        command("bert-base-full", [])


def test_the_experiment_has_the_recipes_name_unless_told(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert command("bert-base-full", [])[:5] == ["dvc", "exp", "run", "-n", "bert-base-full"]
    for options in (["-n", "mine"], ["--name=mine"]):
        done = command("bert-base-full", options)
        assert "bert-base-full" not in done
        assert done[-len(options) :] == options


def test_a_recipe_runs_as_an_experiment_with_its_settings(fake_repository, tmp_path):
    repository = Path(shutil.copytree(fake_repository, tmp_path / "copy", symlinks=True))
    recipe = "# Nearly always right.\ntrain:\n  quality: 0.95\ntracking:\n  report_to: '1e45'\n"
    (repository / "recipes").mkdir()
    (repository / "recipes/better.yaml").write_text(recipe, encoding="utf-8")
    assert run(repository, "python", "-m", "apps.recipe").split(maxsplit=1) == ["better", "Nearly always right.\n"]
    shown = run(repository, "python", "-m", "apps.recipe", "better", "--show")
    settings = ["-S", "train.quality=0.95", "-S", "tracking.report_to='1e45'"]
    assert shlex.split(shown) == ["dvc", "exp", "run", "-n", "better", *settings]

    run(repository, "python", "-m", "apps.recipe", "better", "-S", "train.seed=3")
    _, head = json.loads(run(repository, "dvc", "exp", "show", "--json"))
    (revision,) = head["experiments"][0]["revs"]
    assert revision["name"] == "better"
    params = yaml.safe_load((repository / "params.yaml").read_text())
    assert (params["train"]["quality"], params["train"]["seed"]) == (0.95, 3)
    assert params["tracking"]["report_to"] == "1e45"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("{}", "train.limits: params.yaml has a there, which -S cannot take away; name it, too"),
        ("{a: 1, card arrival: 2}", "train.limits: -S cannot name 'card arrival'; set it in params.yaml"),
        ("{a: 1, öffnen: 2}", "train.limits: -S cannot name 'öffnen'; set it in params.yaml"),
        ("{a: 1, -x: 2}", "train.limits: -S cannot name '-x'; set it in params.yaml"),
        ("{a: {b: 1}}", "train.limits: -S cannot name 'a'; set it in params.yaml"),
    ],
)
def test_a_mapping_that_cannot_be_given_is_refused(write_recipe, limits, message):
    with pytest.raises(ValueError, match=message):
        overrides(write_recipe(f"train: {{limits: {limits}}}\n"), {"train": {"limits": {"a": 1}}})


def test_a_mapping_is_given_entry_by_entry_and_backslashes_are_kept(write_recipe):
    params = {"train": {"limits": {"a": 1}, "folder": "", "flag": False}}
    path = write_recipe("train: {limits: {a: 2, Driver_Window: 0.001}, folder: 'C:\\data\\', flag: true}\n")
    settings = overrides(path, params)
    assert settings == [
        "train.limits.a=2",
        "+train.limits.Driver_Window=0.001",
        r"train.folder='C:\data\\'",
        "train.flag=true",
    ]


def test_ctrl_c_leaves_the_end_to_dvc(fake_repository, tmp_path):
    repository = Path(shutil.copytree(fake_repository, tmp_path / "copy", symlinks=True))
    (repository / "recipes").mkdir()
    (repository / "recipes/slow.yaml").write_text("# Slow.\ntrain:\n  seconds: 60\n", encoding="utf-8")
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with (tmp_path / "output").open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "apps.recipe", "slow"],
            cwd=repository, env=ENVIRONMENT, stdout=output, stderr=output, start_new_session=True, preexec_fn=heed,
        )  # fmt: skip
        while "Running stage 'evaluate'" not in (tmp_path / "output").read_text():
            assert running.poll() is None, (tmp_path / "output").read_text()
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) != 0
    assert "failed to reproduce 'evaluate'" in (tmp_path / "output").read_text()  # DVC's last words
    assert json.loads((repository / ".dvc/tmp/rwlock").read_text()) == {}
