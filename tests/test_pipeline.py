"""The whole pipeline under DVC: what reruns when something changes, and what it leaves behind."""

import csv
import importlib
import json
import re
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from apps import results
from apps.release import release
from intents.files import sha256_of
from tests.project_fixtures import OFFICIAL_TEST, ROOT, STAGES, Clone, clone, stages_run

pytest_plugins = ["tests.project_fixtures"]
pytestmark = pytest.mark.filterwarnings("default")
UP_TO_DATE = "Data and pipelines are up to date."
TIMED = {"metrics/train.json", "metrics/baselines.json"}  # have examples per second, and seconds
# tests/test_export_stage.py runs the export twice, and compares the bytes.
RERUN = [stage for stage in STAGES if stage != "export"]


@pytest.fixture(scope="module")
def repository(finished_project, tmp_path_factory):
    """A copy of the finished project, cache included; tests leave it reproduced and committed."""
    path = tmp_path_factory.mktemp("one") / "copy"
    shutil.copytree(finished_project.author.path, path, symlinks=True)
    return Clone(path, finished_project.author.env | {"DVC_SITE_CACHE_DIR": f"{path}.site"})


@pytest.fixture(scope="module")
def outputs(finished_project):
    """The folder of the finished project. Never write into it."""
    return finished_project.author.path


def hashes_of(project):
    """Return the hash of every output that does not hold how long a stage took."""
    lock = yaml.safe_load((project.path / "dvc.lock").read_text(encoding="utf-8"))
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if out["path"] not in TIMED}


def stale(project):
    """Return, for each file and section of params.yaml that was changed, the stages that are to rerun for it alone."""
    found = {}
    for stage, reasons in json.loads(project.dvc("status", "--json")).items():
        for reason in reasons:
            for path, change in reason["changed deps"].items():
                for changed in change if isinstance(change, dict) else [path]:
                    found.setdefault(changed, []).append(stage)
    return {changed: sorted(stages, key=STAGES.index) for changed, stages in found.items()}


def undo(project):
    project.git("checkout", "--quiet", "--", ".")
    project.dvc("checkout", "--quiet")


def test_every_stage_runs_once_and_the_export_last(finished_project):
    assert stages_run(finished_project.printed) == list(STAGES)
    # An int8 variant that fails its gate must not keep anybody from the classifier.
    printed = finished_project.printed
    assert printed.index("Running stage 'card'") < printed.index("Running stage 'export'")


def test_a_clone_that_runs_everything_anew_gets_the_same_bytes(finished_project, tmp_path, monkeypatch):
    anew = clone(finished_project.git_url, tmp_path / "clone", finished_project.author.env)
    assert not (anew.path / "models").exists()  # a clone has no cache and no remote
    monkeypatch.chdir(anew.path)
    num_threads = torch.get_num_threads()
    # As in the processes that DVC started; they were offline (HF_HUB_OFFLINE), this one is not.
    torch.set_num_threads(1)
    try:
        for stage in RERUN:
            importlib.import_module(f"stages.{stage}").main()
    finally:
        torch.set_num_threads(num_threads)
    # `dvc status` does not look at what is in no cache.
    anew.dvc("commit", "--quiet", "--force", *RERUN)
    assert hashes_of(anew) == hashes_of(finished_project.author)


def test_what_no_stage_reads_reruns_nothing(repository):
    for name in ("README.md", "apps/__init__.py"):
        (repository.path / name).write_text((repository.path / name).read_text(encoding="utf-8") + "# edited\n")
    repository.edit_params(tracking={"project": "elsewhere"}, runtime={"checkpoint_every": 0})
    assert UP_TO_DATE in repository.dvc("repro")
    undo(repository)


def test_an_edited_file_reruns_the_stages_that_read_it_and_others_only_if_their_input_changed(repository):
    readers = {
        "intents/scoring.py": ["calibrate", "evaluate"],
        "intents/templates/card.md.j2": ["card"],
        "intents/templates/report.html.j2": ["evaluate"],
        "stages/evaluate.py": ["evaluate"],
        "stages/prepare.py": ["prepare"],
        "stages/tokenize.py": ["tokenize"],
    }
    for name in readers:
        path = repository.path / name
        mark = "{# edited #}\n" if name.endswith(".j2") else "# edited\n"
        path.write_text(path.read_text(encoding="utf-8") + mark, encoding="utf-8")
    assert stale(repository) == readers
    # Comments: splits, tokens and calibration stay the same bytes, so nothing is trained or exported anew.
    assert stages_run(repository.dvc("repro")) == ["prepare", "tokenize", "calibrate", "evaluate", "card"]
    repository.commit("comments")


def test_a_changed_setting_reruns_the_stages_that_read_it(repository):
    repository.edit_params(
        prepare={"out_of_scope_use": "both"},
        tokenize={"max_length": 12},
        train={"learning_rate": 1e-3},
        calibrate={"max_false_action_rate": 0.1},
        baselines={"regularisations": [1e6]},
        evaluate={"num_mistakes": 3},
        export={"min_agreement": 0.9},
        card={"title": "Another", "license": "mit"},
    )
    assert stale(repository) == {
        "prepare": ["prepare", "card"],
        "prepare.out_of_scope_use": ["calibrate", "evaluate"],
        "tokenize": ["tokenize", "card"],
        "train": ["train", "card"],
        "calibrate": ["calibrate"],
        "calibrate.max_false_action_rate": ["evaluate"],
        "baselines": ["baselines"],
        "evaluate": ["evaluate"],
        "export": ["export"],
        "card": ["card"],
        "card.title": ["evaluate"],
    }
    undo(repository)


def test_what_ran_before_is_restored_and_not_run(repository):
    params = repository.path / "params.yaml"
    before = params.read_text(encoding="utf-8")
    repository.edit_params(card={"license": "mit"})
    assert stages_run(repository.dvc("repro")) == ["card"]
    params.write_text(before, encoding="utf-8")
    assert stages_run(repository.dvc("repro")) == []
    assert repository.git("status", "--porcelain") == ""


def test_changed_test_rows_never_retrain(repository):
    official = repository.path / OFFICIAL_TEST
    official.write_text(official.read_text(encoding="utf-8").replace("sunroof", "tailgate"), encoding="utf-8")
    assert stages_run(repository.dvc("repro", "tokenize")) == ["prepare", "tokenize"]
    assert {stage for stages in stale(repository).values() for stage in stages} == {"baselines", "evaluate", "card"}
    undo(repository)


def test_shorter_texts_and_an_adapter_rerun_all_that_follows_and_can_be_taken_back(repository):
    def adapter_files():
        return {path.name for path in (repository.path / "models/adapter").iterdir()}

    assert adapter_files() == {"adapter.json"}
    repository.edit_params(tokenize={"max_length": 12}, train={"method": "lora"})
    assert stages_run(repository.dvc("repro", "train")) == ["tokenize", "train"]
    assert {stage for stages in stale(repository).values() for stage in stages} == set(STAGES[4:])
    assert adapter_files() == {"adapter.json", "adapter_config.json", "adapter_model.safetensors"}
    undo(repository)
    assert adapter_files() == {"adapter.json"}
    assert UP_TO_DATE in repository.dvc("repro")


def test_plots_render(repository):
    printed = repository.dvc("plots", "show", "-o", "rendered")
    assert "WARNING" not in printed, printed
    page = (repository.path / "rendered/index.html").read_text(encoding="utf-8")
    for title in (
        "Confusion matrix",
        "Precision per intent",
        "Recall per intent",
        "Confidence",
        "Reliability",
        "surest",
        "log-loss",
    ):
        assert title in page


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("prepare", {"source": "absent.csv"}, "absent.csv"),  # DVC's own message
        ("prepare", {"exclude_intents": ["sing"]}, "prepare.exclude_intents: the data has no intent 'sing'; it has:"),
    ],
)
def test_a_wrong_setting_gives_one_clear_error_and_keeps_the_cache(repository, section, settings, message):
    repository.edit_params(**{section: settings})
    printed = repository.dvc("repro", fails=True)
    assert message in printed
    assert "Traceback" not in printed
    undo(repository)
    assert UP_TO_DATE in repository.dvc("repro")


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("train", {"lerning_rate": 1}, "train.lerning_rate: unknown setting; train has:"),
        ("train", {"num_epochs": "many"}, "train.num_epochs: input should be a valid integer"),
        ("train", {"head": "native"}, "train.contrastive_weight: must be 0 with train.head=native"),
        ("prepare", {"out_of_scope_intent": "oos"}, "prepare.out_of_scope_intent: the data has no intent 'oos'"),
        ("calibrate", {"reject_intent": "oos"}, "calibrate.reject_intent: the data has no intent 'oos'; it has:"),
        ("calibrate", {"stricter": {"sing": 0.01}}, "calibrate.stricter: 'sing' is no intent that a threshold guards"),
        ("calibrate", {"max_error_rate": 0}, "calibrate.max_error_rate: input should be greater than 0, got 0"),
        ("tokenize", {"max_length": 4000}, "tokenize.max_length must be at most"),
    ],
)
def test_a_wrong_setting_is_named_by_the_stage_that_reads_it(repository, section, settings, message):
    repository.edit_params(**{section: settings})
    with chdir(repository.path), pytest.raises(ValueError) as error:
        importlib.import_module(f"stages.{section}").main()
    assert message in str(error.value)
    repository.git("checkout", "--quiet", "--", ".")


def test_the_ladder_and_the_behavioural_suite_are_scored(outputs):
    metrics = json.loads((outputs / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert list(metrics["ladder"])[:4] == ["majority", "tfidf", "frozen_encoder", "fine_tuned"]
    assert 0 <= metrics["test"]["behaviour_passed"] <= 1
    [counts] = metrics["test"]["behaviour_pairs"]
    assert counts["asked"] >= 300 and counts["left_out"] == 0
    with (outputs / "metrics/tables/behaviour.csv").open(encoding="utf-8", newline="") as file:
        assert sum(int(row["pairs"]) for row in csv.DictReader(file)) == counts["asked"]
    page = (outputs / "metrics/report.html").read_text(encoding="utf-8")
    assert "<h2>Ladder</h2>" in page and "<h2>Behaviour</h2>" in page


def test_the_checkpoint_carries_its_model_card_and_its_calibration(outputs):
    folder = outputs / "models/classifier"
    names = {path.name for path in (outputs / "models/trained").iterdir()}
    assert {path.name for path in folder.iterdir()} == names | {"calibration.json", "README.md"}
    test = json.loads((outputs / "metrics/evaluate.json").read_text(encoding="utf-8"))["test"]
    card = ModelCard.load(folder / "README.md")
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {"accuracy": test["accuracy"], "f1": test["macro_f1"]}
    assert sha256_of(folder / "model.safetensors") in card.text


def test_a_release_has_checkpoint_card_and_exports_and_its_snippets_run(outputs, tmp_path, monkeypatch, capsys):
    target = tmp_path / "release"
    monkeypatch.chdir(outputs)
    release(target)
    assert (target / "onnx/metrics.json").read_bytes() == Path("metrics/export.json").read_bytes()
    page = (target / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:  # in the order of the text: the checkpoint, the runtime, plain ONNX
        moved = snippet.replace("models/classifier", str(target)).replace("models/onnx", str(target / "onnx"))
        exec(moved, {"__name__": "__main__"})
        printed = capsys.readouterr().out
        assert any(intent in printed for intent in ("no_intent", "window_down", "conditioner_on", "wipers_on")), printed


def test_a_release_with_metrics_of_another_export_is_refused(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository.path)
    exported = Path("metrics/export.json").read_bytes()
    try:
        Path("metrics/export.json").write_text('{"accuracy": {"int8": 0.1}}')
        with pytest.raises(ValueError, match="metrics/export.json: not what the stages wrote, by dvc.lock"):
            release(tmp_path / "release")
        Path("metrics/export.json").write_bytes(exported)
        tokenizer = Path("models/classifier/tokenizer.json")
        whole = tokenizer.read_bytes()
        tokenizer.write_bytes(whole[:100])
        with pytest.raises(ValueError, match="models/classifier: not what the stages wrote, by dvc.lock"):
            release(tmp_path / "release")
        tokenizer.write_bytes(whole)
        assert not (tmp_path / "release").exists()
        Path("dvc.lock").write_text("stages: [")
        with pytest.raises(ValueError, match=r"dvc\.lock"):
            release(tmp_path / "release")
    finally:
        undo(repository)


def test_the_splits_open_with_datasets(outputs, tmp_path):
    from datasets import load_dataset

    files = {"test": str(outputs / "data/prepared/test.parquet")}
    rows = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))["test"]
    assert rows.column_names == ["text", "intent", "label", "kind", "row"]
    assert rows[0]["text"].startswith("open the ")


def test_only_safetensors_and_text_is_written(outputs):
    suffixes = {path.suffix for path in (outputs / "models").rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt", ".onnx", ".md", ".gitignore", ""}


def test_a_comparison_knows_all_stages_and_refuses_one_that_has_not_seen_its_newest_input(outputs):
    with results.ResultReader(outputs) as reader:
        settings = reader.read("HEAD").settings
    assert {"train.seed", "prepare.seed", "tokenize.max_length", "calibrate.reject_intent"} <= settings.keys()
    lock = yaml.safe_load((outputs / "dvc.lock").read_text())["stages"]
    params = yaml.safe_load((outputs / "params.yaml").read_text())
    stages = results._stages_behind("v1", lock)
    made = {out["path"]: out["md5"] for one in stages.values() for out in one["outs"]}
    results._check_current("v1", stages, made, params)
    with pytest.raises(ValueError, match="v1: stage (calibrate|evaluate) has not seen the newest models/trained"):
        results._check_current("v1", stages, made | {"models/trained": "0" * 32 + ".dir"}, params)


def test_the_python_of_readme_and_the_pages_runs(outputs, tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(outputs)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    assert len(blocks) >= 5
    answered = 0
    for block in blocks:
        names = {}
        exec(block, names)
        if "answers" in names:
            answered += 1
            assert set(names["answers"]) <= set(names["classifier"].settings.intents)
    assert answered >= 3


def test_a_change_in_an_encoder_of_a_folder_is_taken_up_where_it_is_asked_for(repository):
    weights = repository.path / "encoders/tiny/model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    assert UP_TO_DATE in repository.dvc("repro")  # DVC does not watch it, as README says
    assert stages_run(repository.dvc("repro", "-f", "encoder")) == ["encoder"]
    assert stale(repository)["models/encoder"] == ["tokenize", "train", "baselines", "card"]
    undo(repository)
