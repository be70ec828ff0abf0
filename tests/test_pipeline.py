import ast
import csv
import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from intents.files import sha256_of
from intents.params import Params
from tests.pipeline import ROOT, STAGES, commit, copy_repository, edit_params, run, stages_run

pytestmark = pytest.mark.filterwarnings("default")

DVC_YAML = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
OURS = ("intents", "stages", "apps")
OFFICIAL_TEST = "official_test.csv"
UNDECLARED_SECTIONS = {"tracking", "runtime"}  # cannot change a result, so no stage depends on them


def module_file(module: str) -> Path | None:
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).is_file():
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
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
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
        if isinstance(value, type) and issubclass(value, Params) and value is not Params
    ]
    section_of = {model: model.__name__.removesuffix("Params").lower() for model in models}
    read = {section for section in section_of.values() if section not in UNDECLARED_SECTIONS}
    read |= set(getattr(module, "ALSO_READS", ()))
    assert set(DVC_YAML["stages"][stage]["params"]) == read
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for model, section in section_of.items():
        assert set(model.model_fields) == set(params[section]), section


def test_no_stage_imports_another_stage_or_an_app():
    for stage in DVC_YAML["stages"]:
        others = {path for path in import_closure(f"stages.{stage}") if path.startswith(("stages/", "apps/"))}
        assert others == {"stages/__init__.py", f"stages/{stage}.py"}


def test_the_library_imports_neither_stages_nor_apps():
    for path in (ROOT / "intents").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        assert not {name for name in import_closure(module) if name.startswith(("stages/", "apps/"))}, path


def test_every_template_of_the_report_is_declared():
    declared = {dep for dep in DVC_YAML["stages"]["evaluate"]["deps"] if dep.endswith(".j2")}
    assert "intents/templates/report.html.j2" in declared


@pytest.fixture(scope="module")
def repository(tmp_path_factory, tiny_encoder):
    """A small repository whose pipeline has run once; tests leave it reproduced and committed."""
    target = copy_repository(tmp_path_factory.mktemp("one"), tiny_encoder)
    rows = "text,intent\nopen the sunroof now,no_intent\nwindow down on my side,driver_window_down\n"
    (target / OFFICIAL_TEST).write_text(rows, encoding="utf-8")
    edit_params(target, prepare={"test_source": OFFICIAL_TEST})
    done = run(target, "dvc", "repro")
    assert stages_run(done.stdout) == list(STAGES)
    # An int8 variant that fails its gate must not keep anybody from the classifier.
    assert done.stdout.index("Running stage 'card'") < done.stdout.index("Running stage 'export'")
    commit(target, "run")
    return target


def test_a_second_repro_runs_nothing(repository):
    assert "Data and pipelines are up to date." in run(repository, "dvc", "repro").stdout


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ("README.md", []),
        ("apps/__init__.py", []),
        ("intents/scoring.py", ["calibrate", "evaluate"]),  # the classifier stays the same bytes: no export
        ("intents/templates/report.html.j2", ["evaluate"]),
        ("intents/templates/card.md.j2", ["card"]),
        ("stages/evaluate.py", ["evaluate"]),
        ("stages/prepare.py", ["prepare"]),  # a comment: the splits stay the same bytes, so nothing follows
        ("stages/tokenize.py", ["tokenize"]),
    ],
)
def test_an_edited_file_reruns_what_depends_on_it(repository, edited, expected):
    path = repository / edited
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    mark = "{# edited #}\n" if edited.endswith(".j2") else "# edited\n"
    path.write_text(before + mark, encoding="utf-8")
    assert stages_run(run(repository, "dvc", "repro").stdout) == expected
    commit(repository, f"edit {edited}")


@pytest.mark.parametrize(
    ("section", "setting", "value", "expected"),
    [
        ("tracking", "project", "elsewhere", []),
        ("evaluate", "num_mistakes", 3, ["evaluate"]),
        ("card", "title", "Another title", ["card"]),
        ("evaluate", "behaviour_pairs", "data/none", ["evaluate", "card"]),
        ("evaluate", "behaviour_pairs", "data/behaviour/pairs.csv", []),  # as before: restored, not run
        ("train", "learning_rate", 1e-3, ["train", "calibrate", "evaluate", "card", "export"]),
        ("calibrate", "reject_intent", None, ["calibrate", "evaluate", "card", "export"]),
        ("baselines", "regularisations", [1e6], ["baselines", "evaluate", "card"]),
        ("tokenize", "max_length", 12, ["tokenize", "train", "calibrate", "baselines", "evaluate", "card", "export"]),
    ],
)
def test_a_changed_setting_reruns_its_stage_and_what_follows(repository, section, setting, value, expected):
    edit_params(repository, **{section: {setting: value}})
    assert stages_run(run(repository, "dvc", "repro").stdout) == expected
    commit(repository, f"set {section}.{setting}")


def test_the_adapters_folder_follows_the_method(repository):
    def adapter_files():
        return {path.name for path in (repository / "models/adapter").iterdir()}

    assert adapter_files() == {"adapter.json"}
    edit_params(repository, train={"method": "lora"})
    assert stages_run(run(repository, "dvc", "repro").stdout) == ["train", "calibrate", "evaluate", "card", "export"]
    assert adapter_files() == {"adapter.json", "adapter_config.json", "adapter_model.safetensors"}
    run(repository, "git", "checkout", "-q", "--", ".")
    run(repository, "dvc", "checkout")
    assert adapter_files() == {"adapter.json"}
    assert "Data and pipelines are up to date." in run(repository, "dvc", "repro").stdout


def test_changed_test_rows_never_retrain(repository):
    official = repository / OFFICIAL_TEST
    official.write_text(official.read_text(encoding="utf-8").replace("sunroof", "tailgate"), encoding="utf-8")
    assert stages_run(run(repository, "dvc", "repro").stdout) == [
        "prepare",
        "tokenize",
        "baselines",
        "evaluate",
        "card",
    ]
    commit(repository, "official test rows")


def test_two_folders_give_the_same_bytes_and_a_clone_reruns_nothing(repository, tmp_path, tiny_encoder):
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(repository), str(clone))
    before = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))
    run(clone, "dvc", "config", "--local", "cache.dir", str(repository / ".dvc/cache"))
    run(clone, "dvc", "checkout")
    assert "Data and pipelines are up to date." in run(clone, "dvc", "repro").stdout

    run(clone, "dvc", "config", "--local", "--unset", "cache.dir")  # an empty cache of its own: everything runs anew
    assert stages_run(run(clone, "dvc", "repro", "--force").stdout) == list(STAGES)
    after = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))
    timed = {"metrics/train.json", "metrics/baselines.json"}  # have examples per second, and seconds
    for stage in STAGES:
        hashes = [
            {out["path"]: out["md5"] for out in lock["stages"][stage]["outs"] if out["path"] not in timed}
            for lock in (before, after)
        ]
        assert hashes[0] == hashes[1], stage


def test_the_ladder_and_the_behavioural_suite_are_scored(repository):
    metrics = json.loads((repository / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert list(metrics["ladder"])[:4] == ["majority", "tfidf", "frozen_encoder", "fine_tuned"]
    assert 0 <= metrics["test"]["behaviour_passed"] <= 1
    [counts] = metrics["test"]["behaviour_pairs"]
    assert counts["asked"] >= 300 and counts["left_out"] == 0
    with (repository / "metrics/tables/behaviour.csv").open(encoding="utf-8", newline="") as file:
        assert sum(int(row["pairs"]) for row in csv.DictReader(file)) == counts["asked"]
    page = (repository / "metrics/report.html").read_text(encoding="utf-8")
    assert "<h2>Ladder</h2>" in page and "<h2>Behaviour</h2>" in page


def test_plots_render(repository):
    done = run(repository, "dvc", "plots", "show", "-o", "rendered")
    assert "WARNING" not in done.stdout, done.stdout
    page = (repository / "rendered/index.html").read_text(encoding="utf-8")
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


def test_the_checkpoint_opens_in_a_stock_pipeline(repository):
    code = (
        "import intents; from transformers import pipeline;"
        "answer = pipeline('text-classification', model='models/classifier')('roll my window down');"
        "print('answer', answer[0]['label'])"
    )
    line = run(repository, "python", "-W", "ignore", "-c", code).stdout.splitlines()[-1]
    assert line.startswith("answer ") and line.split()[1] in {
        "driver_window_down", "passenger_window_down", "air_conditioner_on", "windshield_wipers_on", "no_intent",
    }  # fmt: skip


def test_the_checkpoint_carries_its_model_card_and_its_calibration(repository):
    folder = repository / "models/classifier"
    names = {path.name for path in (repository / "models/trained").iterdir()}
    assert {path.name for path in folder.iterdir()} == names | {"calibration.json", "README.md"}
    test = json.loads((repository / "metrics/evaluate.json").read_text(encoding="utf-8"))["test"]
    card = ModelCard.load(folder / "README.md")
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {"accuracy": test["accuracy"], "f1": test["macro_f1"]}
    assert sha256_of(folder / "model.safetensors") in card.text


def test_a_release_has_checkpoint_card_and_exports_and_its_snippets_run(repository, tmp_path):
    target = tmp_path / "release"
    run(repository, "python", "-m", "apps.release", str(target))
    assert (target / "onnx/metrics.json").read_bytes() == (repository / "metrics/export.json").read_bytes()
    page = (target / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 3
    for snippet in snippets:  # in the order of the text: the checkpoint, the runtime, plain ONNX
        moved = snippet.replace("models/classifier", str(target)).replace("models/onnx", str(target / "onnx"))
        printed = run(repository, "python", "-W", "ignore", "-c", moved).stdout
        assert any(intent in printed for intent in ("no_intent", "window_down", "conditioner_on", "wipers_on")), printed


def test_the_splits_open_with_datasets(repository):
    code = (
        "from datasets import load_dataset;"
        "files = {'test': 'data/prepared/test.parquet'};"
        "rows = load_dataset('parquet', data_files=files, cache_dir='datasets')['test'];"
        "print('rows', rows.column_names, rows[0]['text'])"
    )
    line = run(repository, "python", "-W", "ignore", "-c", code).stdout.splitlines()[-1]
    assert line.startswith("rows ['text', 'intent', 'label', 'kind', 'row'] open the ")


def test_only_safetensors_and_text_is_written(repository):
    suffixes = {path.suffix for path in (repository / "models").rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt", ".onnx", ".md", ".gitignore", ""}


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("train", {"lerning_rate": 1}, "train.lerning_rate: unknown setting; train has:"),
        ("train", {"num_epochs": "many"}, "train.num_epochs: input should be a valid integer"),
        ("train", {"head": "native"}, "train.contrastive_weight: must be 0 with train.head=native"),
        ("prepare", {"exclude_intents": ["sing"]}, "prepare.exclude_intents: the data has no intent 'sing'; it has:"),
        ("prepare", {"source": "absent.csv"}, "absent.csv"),
        ("prepare", {"out_of_scope_intent": "oos"}, "prepare.out_of_scope_intent: the data has no intent 'oos'"),
        ("calibrate", {"reject_intent": "oos"}, "calibrate.reject_intent: the data has no intent 'oos'; it has:"),
        ("calibrate", {"stricter": {"sing": 0.01}}, "calibrate.stricter: 'sing' is no intent that a threshold guards"),
        ("calibrate", {"max_error_rate": 0}, "calibrate.max_error_rate: input should be greater than 0, got 0"),
        ("tokenize", {"max_length": 4000}, "tokenize.max_length must be at most"),
    ],
)
def test_a_wrong_setting_gives_one_clear_error_and_keeps_the_cache(repository, section, settings, message):
    edit_params(repository, **{section: settings})
    done = run(repository, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    run(repository, "git", "checkout", "-q", "--", ".")
    run(repository, "dvc", "checkout")
    assert "Data and pipelines are up to date." in run(repository, "dvc", "repro").stdout
