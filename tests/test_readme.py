"""What README and the pages in docs say of the files, the commands, the settings and the results is so."""

import csv
import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from stages.evaluate import summary
from tests.project_fixtures import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
TREE = README.partition("## What is where")[2].partition("## What reruns")[0]


def metrics_of(name):
    return json.loads((ROOT / f"metrics/{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["stages", "apps", "intents"])
def test_the_tree_names_every_module(folder):
    (part,) = re.findall(rf"^{folder}/.*\n(?:  .*\n)+", TREE, re.MULTILINE)
    families = re.findall(r"(\w+_)\*\.py", part)
    for path in (ROOT / folder).glob("*.py"):
        if path.name != "__init__.py" and not path.name.startswith(tuple(families)):
            assert re.search(rf"\b{path.name}\b", part), path


def test_what_the_tree_names_exists():
    known = {path.name for folder in ("stages", "apps", "intents") for path in (ROOT / folder).glob("*.py")}
    assert set(re.findall(r"(?<![*\w])\w+\.py", TREE)) <= known
    for name in re.findall(r"^(\S+)", TREE, re.MULTILINE):
        assert name == "```" or (ROOT / name).exists(), name


def test_commands_and_settings_that_it_names_exist():
    modules = set(re.findall(r"-m ((?:apps|stages|benchmarks)[\w.]*)", TEXT))
    assert len(modules) > 5
    assert [name for name in modules if not importlib.util.find_spec(name)] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:^|`)make ([a-z-]+)\b", TEXT, re.MULTILINE)
    assert len(targets) > 5
    assert [name for name in targets if f"\n{name}:" not in makefile] == []
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings = re.findall(rf"\b({'|'.join(params)})\.([a-z_]+)\b(?!\()", TEXT)
    files = {"py", "md", "json", "html", "csv", "yaml", "parquet"}
    unknown = {".".join(pair) for pair in settings if pair[1] not in params[pair[0]] and pair[1] not in files}
    assert unknown == set()


def test_the_output_that_it_shows_is_that_of_the_committed_metrics():
    for line in summary(metrics_of("evaluate")["test"]).splitlines():
        assert line in README
    validation = metrics_of("train")["validation"]
    rows = re.findall(r"^  main .*$", TEXT, re.MULTILINE)
    assert rows
    for shown in rows:
        assert [str(validation[name]) for name in ("accuracy", "log_loss")] == shown.split()[1:3]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_its_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_readme_names_every_page():
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in README


@pytest.mark.parametrize(
    ("paths", "description"),
    [
        ("data/raw/driver_intents.csv", "{:,} driver utterances"),
        ("data/heldout/*.csv", "{:,} more by other authors"),
        ("data/behaviour/pairs.csv", "{:,} pairs of utterances"),
    ],
)
def test_the_rows_that_it_counts_are_there(paths, description):
    rows = 0
    for path in Path(ROOT).glob(paths):
        with path.open(encoding="utf-8", newline="") as file:
            rows += sum(1 for _ in csv.DictReader(file))
    assert description.format(rows) in README
