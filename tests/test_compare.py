"""Tests of `python -m apps.compare` in real Git and DVC repositories; their pipeline makes up its answers."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from apps.compare import main
from apps.results import ResultReader
from apps.revisions import fetch_output
from tests.compare_fixtures import change_params, commit, run

pytest_plugins = ["tests.compare_fixtures"]


@pytest.fixture(scope="module")
def master(fake_repository, tmp_path_factory):
    """Repository with a baseline and its experiments better, seed-1 and fewer-rows. Never write into it."""
    folder = Path(shutil.copytree(fake_repository, tmp_path_factory.mktemp("compare") / "master", symlinks=True))
    for name, setting in (
        ("better", "train.quality=0.95"),
        ("seed-1", "train.seed=1"),
        ("fewer-rows", "prepare.rows=200"),
    ):
        run(folder, "dvc", "exp", "run", "-q", "-n", name, "-S", setting)
        back_to_head(folder)
    return folder


@pytest.fixture
def repository(master, tmp_path):
    """A copy of the repository that a test may change."""
    return Path(shutil.copytree(master, tmp_path / "copy", symlinks=True))


def back_to_head(folder):
    run(folder, "git", "checkout", "-q", ".")
    run(folder, "dvc", "checkout", "-q")


@pytest.fixture
def compare(monkeypatch, capsys):
    """Return a function that calls the command in a folder and returns what it printed, mostly JSON."""

    def call(folder, *arguments, style="--json"):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["apps.compare", *([style] if style else []), *arguments])
        capsys.readouterr()
        main()
        printed = capsys.readouterr().out
        return json.loads(printed) if style == "--json" else printed

    return call


@pytest.fixture
def refusal(compare):
    """Return a function that calls the command, which must refuse, and returns its reason."""

    def call(folder, *arguments):
        with pytest.raises(ValueError) as error:
            compare(folder, *arguments)
        return str(error.value)

    return call


def state_of(folder):
    """Return every file of the workspace with its content and time of change."""
    paths = [p for p in folder.rglob("*") if p.is_file() and ".dvc" not in p.parts and "__pycache__" not in p.parts]
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths if ".git" not in p.relative_to(folder).parts[:1]}


def test_two_experiments_are_compared_without_touching_the_workspace(repository, compare):
    (repository / "params.yaml").write_text("half: [edited", encoding="utf-8")
    before = state_of(repository)
    found = compare(repository, "HEAD", "better")
    assert state_of(repository) == before
    assert [group["name"] for group in found["groups"]] == ["HEAD", "better"]
    assert found["groups"][1]["changes"] == {"train.quality": {"reference": 0.8, "value": 0.95}}
    (pair,) = found["pairs"]
    assert pair["accuracy"]["p"] < 0.001
    assert pair["accuracy"]["difference"]["value"] > 0.1


def test_without_names_all_experiments_of_head_take_part_and_those_with_other_rows_are_left_out(repository, compare):
    found = compare(repository)
    assert [group["name"] for group in found["groups"]] == ["HEAD (2 seeds)", "better"]
    assert [result["name"] for result in found["groups"][0]["results"]] == ["HEAD", "seed-1"]
    (note,) = found["notes"]
    assert note.startswith("left out: the test rows of 'HEAD' and 'fewer-rows' differ (300 and 200 rows")
    assert note.endswith("give both the same prepare.rows")


def test_strict_fails_when_something_was_left_out(repository, refusal):
    assert "1 experiment(s) left out" in refusal(repository, "--strict")


def test_named_revisions_with_other_test_rows_are_refused(repository):
    message = run(repository, "apps.compare", "HEAD", "fewer-rows", fails=True)
    assert message.startswith("error: the test rows of 'HEAD' and 'fewer-rows' differ")
    assert "Traceback" not in message


def test_without_experiments_the_workspace_is_compared_with_head(repository, compare):
    run(repository, "dvc", "exp", "remove", "-A", "-q")
    change_params(repository, train={"quality": 0.9})
    run(repository, "dvc", "repro", "-q")
    assert [group["name"] for group in compare(repository)["groups"]] == ["HEAD", "workspace"]


def test_branches_tags_and_commits_are_revisions_too(repository, compare):
    run(repository, "git", "tag", "v1")
    run(repository, "git", "checkout", "-q", "-b", "idea")
    (repository / "model.py").write_text("SHIFT = 0.1\n", encoding="utf-8")
    run(repository, "dvc", "repro", "-q")
    commit(repository, "shifted")
    sha = run(repository, "git", "rev-parse", "idea").strip()
    for names in (("v1", "idea"), ("main", sha)):
        found = compare(repository, *names)
        assert [group["name"] for group in found["groups"]] == list(names)
        assert list(found["groups"][1]["changes"]) == ["model.py"]


def test_one_name_is_compared_with_head(repository, compare):
    assert [group["name"] for group in compare(repository, "better")["groups"]] == ["HEAD", "better"]


def test_a_workspace_whose_settings_were_edited_but_not_run_is_no_result(repository, refusal):
    change_params(repository, train={"quality": 0.7})
    message = refusal(repository, "HEAD", "workspace")
    assert "workspace: params.yaml says train.quality: 0.7, but the results were made with 0.8; `dvc repro`" in message


def test_settings_that_no_stage_reads_may_differ(repository, compare):
    change_params(repository, tracking={"report_to": "wandb"})
    assert compare(repository, "HEAD", "workspace")["notes"][0].startswith("workspace is the same as HEAD")


@pytest.mark.parametrize("path", ["metrics/evaluate.json", "data/predictions/test.parquet"])
def test_an_output_that_was_changed_by_hand_is_no_result(repository, path, refusal):
    (repository / path).chmod(0o644)
    (repository / path).unlink()
    (repository / path).write_text("{}", encoding="utf-8")
    message = refusal(repository, "HEAD", "workspace")
    assert f"workspace: {path} is not what dvc.lock records" in message


def test_a_commit_whose_settings_were_never_run_is_left_out_of_all_and_refused_by_name(repository, refusal):
    run(repository, "git", "checkout", "-q", "-b", "half")
    change_params(repository, train={"quality": 0.6})
    commit(repository, "settings alone")
    message = refusal(repository, "main", "half")
    assert message.startswith("half: params.yaml says train.quality: 0.6, but the results were made with 0.8")


@pytest.mark.parametrize("name", ["nope", " ", "HEAD:params.yaml", "HEAD^{tree}"])
def test_a_name_that_nothing_has_is_an_error_that_says_where_to_look(repository, refusal, name):
    assert f"no branch, tag, commit or experiment is called {name!r}" in refusal(repository, "HEAD", name)


def test_data_in_a_folder_that_dvc_tracks_and_no_run_has_read_is_no_result(repository, refusal):
    (repository / "my").mkdir()
    (repository / "my/rows.csv").write_text("first\n")
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())
    stages["stages"]["evaluate"]["deps"].append("my/rows.csv")
    (repository / "dvc.yaml").write_text(yaml.safe_dump(stages))
    run(repository, "dvc", "add", "-q", "my")
    run(repository, "dvc", "repro", "-q")
    commit(repository, "data")
    run(repository, "git", "tag", "good")
    (repository / "my/rows.csv").write_text("second\n")
    run(repository, "dvc", "add", "-q", "my")
    commit(repository, "other data, and no run")
    message = "HEAD: my/rows.csv has changed since the results were made; `dvc repro` or `dvc exp run` first"
    assert message in refusal(repository, "good", "HEAD")


def test_code_that_was_edited_and_not_run_is_no_result(repository, refusal):
    with (repository / "model.py").open("a") as file:
        file.write("# edited\n")
    message = "model.py has changed since the results were made; `dvc repro` or `dvc exp run` first"
    assert refusal(repository, "HEAD", "workspace") == f"workspace: {message}"
    run(repository, "git", "checkout", "-q", "-b", "edited")
    commit(repository, "code alone")
    assert refusal(repository, "main", "edited") == f"edited: {message}"


def test_an_experiment_is_compared_though_a_branch_has_its_name_and_by_that_name_refused(repository, compare, refusal):
    run(repository, "git", "branch", "better")
    found = compare(repository)
    assert "better" in [group["name"] for group in found["groups"]]
    assert "'better' is an experiment and a branch or tag as well" in refusal(repository, "HEAD", "better")


def test_a_name_that_experiments_of_two_commits_have_is_ambiguous(repository, refusal):
    for number in range(2):
        run(repository, "dvc", "exp", "save", "-q", "-n", "twice")
        (repository / f"note{number}").write_text("", encoding="utf-8")
        commit(repository, "note")
    assert "experiments of several commits are called 'twice'" in refusal(repository, "HEAD", "twice")


def test_predictions_that_only_the_remote_has_are_read_from_there(repository, tmp_path, compare):
    run(repository, "dvc", "remote", "add", "--local", "-d", "store", str(tmp_path / "store"))
    run(repository, "dvc", "push", "-q", "--all-commits")
    run(repository, "dvc", "exp", "apply", "-q", "better")
    run(repository, "dvc", "push", "-q")
    back_to_head(repository)
    shutil.rmtree(repository / ".dvc" / "cache")
    assert len(compare(repository, "HEAD", "better")["groups"]) == 2


def test_predictions_that_nobody_has_are_an_error_that_names_the_remedy(repository, refusal):
    shutil.rmtree(repository / ".dvc" / "cache" / "files")
    message = refusal(repository, "HEAD", "better")
    assert "HEAD: data/predictions/test.parquet is neither in the DVC cache nor in its remote" in message
    assert "dvc exp pull" in message


def test_a_merge_that_stopped_is_named(repository, refusal):
    with (repository / "params.yaml").open("a") as file:
        file.write("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n")
    assert "workspace: params.yaml is not valid YAML" in refusal(repository, "HEAD", "workspace")


def test_a_remote_that_cannot_be_asked_is_an_error_that_names_the_remedy(repository, refusal):
    run(repository, "dvc", "remote", "add", "--local", "-d", "store", "http://127.0.0.1:9/store")
    shutil.rmtree(repository / ".dvc" / "cache" / "files")
    assert "is neither in the DVC cache nor in its remote" in refusal(repository, "HEAD", "better")


def test_a_number_in_scientific_notation_is_the_number(repository):
    run(repository, "dvc", "exp", "run", "-q", "-n", "tiny", "-S", "train.quality=9e-05")
    with ResultReader(repository) as reader:
        assert reader.read("tiny").settings["train.quality"] == 9e-05


def test_a_page_a_markdown_file_and_a_terminal_table_can_be_had(repository, compare):
    compare(repository, "-o", "comparison.html", "HEAD", "better", style="--html")
    assert "Could it be luck?" in (repository / "comparison.html").read_text(encoding="utf-8")
    assert "| HEAD → better |" in compare(repository, "HEAD", "better", style="--md")
    assert "exact McNemar" in compare(repository, "HEAD", "better", style=None)


@pytest.mark.parametrize("arguments", [["--confidence-level", "95"], ["--bootstrap-samples", "1"], ["--md"]])
def test_wrong_options_are_named(repository, compare, capsys, arguments):
    with pytest.raises(SystemExit):
        compare(repository, *arguments)
    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]  # the lines before it name every option


def test_a_folder_of_a_larger_repository_has_revisions_too(repository, compare, tmp_path):
    shutil.rmtree(repository / ".git")
    folder = Path(shutil.move(repository, tmp_path / "larger/classifier"))
    run(folder.parent, "git", "init", "-q", "-b", "main")
    commit(folder.parent, "classifier")
    change_params(folder, train={"quality": 0.5})
    run(folder, "dvc", "repro", "-q")
    assert [group["name"] for group in compare(folder, "HEAD", "workspace")["groups"]] == ["HEAD", "workspace"]
    fetched = fetch_output("HEAD", "data/predictions/test.parquet", folder)
    assert fetched.read_bytes() != (folder / "data/predictions/test.parquet").read_bytes()


def test_a_file_without_a_style_is_refused(repository, compare, capsys):
    with pytest.raises(SystemExit):
        compare(repository, "-o", "comparison.txt", style=None)
    error = capsys.readouterr().err.splitlines()[-1]  # the lines before it name every option
    assert [style for style in ("--json", "--md", "--html") if style not in error] == []
    assert not (repository / "comparison.txt").exists()
