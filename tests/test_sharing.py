"""Two people, two clones, one remote: what one makes the other gets, whole, and nothing is computed twice."""

import json
import re
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from apps.revisions import fetch_output
from tests.project_fixtures import ROOT

pytest_plugins = ["tests.sharing_fixtures"]
UP_TO_DATE = "Data and pipelines are up to date."
# With the packages of no adapter: what is shipped needs none.
PREDICT = """
import sys; sys.modules["peft"] = sys.modules["bitsandbytes"] = None
import intents, json, transformers
answers = transformers.pipeline("text-classification", model=sys.argv[1])(json.loads(sys.argv[2]))
print(json.dumps([answer["label"] for answer in answers]))
"""


def share(author, *, run_cache=False):
    """Commit the remote's settings and push everything."""
    author.commit("Remote")
    author.git("push", "--quiet")
    author.dvc("push", *(["--run-cache"] if run_cache else []))


def add_folder(author):
    """Make a shared folder the default remote."""
    author.dvc("remote", "add", "--default", "store", str(author.path.parent / "store"))


def cached(clone, path):
    """Return whether the file that dvc.lock names `path` is in the clone's cache."""
    for stage in yaml.safe_load((clone.path / "dvc.lock").read_text())["stages"].values():
        for out in stage.get("outs", []):
            if out["path"] == path:
                return (clone.path / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]).exists()
    raise AssertionError(f"no {path} in dvc.lock")


def test_two_clones_share_data_runs_and_experiments_over_s3(author, clone_of, s3_server):
    author.add_s3(s3_server, "story")
    share(author, run_cache=True)

    other = clone_of(author, "other")
    other.set_keys(s3_server)
    other.dvc("pull", "--run-cache")
    assert UP_TO_DATE in other.dvc("repro")
    # The run-cache came along: without dvc.lock too, a stage that ran elsewhere is not run again. (Only one
    # without metrics: `dvc push --run-cache` leaves their bytes behind, since they are in Git.)
    (other.path / "dvc.lock").unlink()
    assert "Stage 'encoder' is cached - skipping run" in other.dvc("repro", "encoder")
    other.git("checkout", "--quiet", "dvc.lock")

    printed = other.dvc("exp", "run", "--name", "narrow", "-S", "evaluate.confidence_level=0.5")
    assert "Running stage 'evaluate'" in printed
    assert "Running stage 'train'" not in printed
    other.dvc("exp", "push", "origin", "narrow")

    author.dvc("exp", "pull", "origin", "narrow")
    shown = json.loads(author.dvc("exp", "show", "--json"))
    assert "narrow" in {run["name"] for baseline in shown for run in baseline["experiments"] or []}
    wide = json.loads((author.path / "metrics/evaluate.json").read_text())
    narrow = json.loads(author.git("show", f"{author.git('rev-parse', _ref(author))}:metrics/evaluate.json"))
    assert narrow["test"]["accuracy"] == wide["test"]["accuracy"]
    assert narrow["test"]["accuracy_interval"] != wide["test"]["accuracy_interval"]
    predictions = fetch_output("narrow", "data/predictions/test.parquet", author.path)
    assert pq.read_table(predictions).num_rows == wide["test"]["examples"]
    assert author.git("status", "--porcelain") == ""


def _ref(clone):
    return clone.git("for-each-ref", "--format=%(refname)", "refs/exps/**/narrow")


def test_a_clone_without_data_pulls_only_what_a_change_needs(author, clone_of):
    add_folder(author)
    share(author)
    clone = clone_of(author, "clone")
    params = clone.path / "params.yaml"
    params.write_text(params.read_text().replace("num_mistakes: 50", "num_mistakes: 5"))
    printed = clone.dvc("repro", "--pull", "--allow-missing")
    assert "Running stage 'evaluate'" in printed
    assert "Running stage 'train'" not in printed
    assert cached(clone, "models/trained")
    assert cached(clone, "data/tokenized/test.parquet")
    assert not cached(clone, "models/encoder")
    assert not cached(clone, "data/tokenized/train.parquet")


@pytest.mark.parametrize("kind", ["folder", "ssh"])
def test_a_shared_folder_and_ssh_hand_over_everything(author, clone_of, kind, request):
    if kind == "folder":
        add_folder(author)
    else:
        server = request.getfixturevalue("ssh_server")
        url = f"ssh://{server.user}@127.0.0.1:{server.port}{server.folder / 'data'}"
        author.dvc("remote", "add", "--default", "store", url)
        author.dvc("remote", "modify", "--local", "store", "keyfile", str(server.key))
    share(author, run_cache=True)
    clone = clone_of(author, "clone")
    if kind == "ssh":
        assert "failed" in clone.dvc("pull", fails=True)
        clone.dvc("remote", "modify", "--local", "store", "keyfile", str(server.key))
    clone.dvc("pull")
    assert UP_TO_DATE in clone.dvc("repro")
    clone.run("python", "-m", "apps.verify", "--contents")


def test_a_consumer_gets_the_classifier_of_a_version_a_tag_or_an_experiment(author, clone_of, tmp_path):
    add_folder(author)
    share(author)
    author.git("tag", "--annotate", "classifier@v1.0.0", "--message", "First")
    note = author.path / "models/classifier/note.txt"
    for text, name in (("second", "classifier@v2.0.0"), ("experiment", None)):
        note.write_text(text)
        author.dvc("commit", "--force", "card")
        if name is None:
            author.dvc("exp", "save", "--name", "tried")
            author.dvc("exp", "push", "origin", "tried")
        else:
            author.commit(text)
            author.dvc("push")
            author.git("tag", "--annotate", name, "--message", text)
    author.git("push", "--quiet", "origin", "HEAD", "--tags")
    url = author.git("remote", "get-url", "origin")

    def notes_of(folder):
        return (author.path / folder / "note.txt").read_text() if (author.path / folder / "note.txt").exists() else ""

    out = str(tmp_path / "got")
    author.dvc("artifacts", "get", url, "classifier", "--out", f"{out}-latest")
    author.dvc("artifacts", "get", url, "classifier", "--rev", "v1.0.0", "--out", f"{out}-v1")
    author.dvc("get", url, "models/classifier", "--rev", "classifier@v2.0.0", "--out", f"{out}-v2")
    consumer = clone_of(author, "consumer")
    consumer.dvc("exp", "pull", "origin", "tried")
    consumer.dvc("get", ".", "models/classifier", "--rev", "tried", "--out", f"{out}-tried")
    found = [notes_of(f"{out}-{name}") for name in ("latest", "v1", "v2", "tried")]
    assert found == ["second", "", "second", "experiment"]

    rows = pq.read_table(author.path / "data/predictions/test.parquet").to_pydict()
    texts = json.dumps(rows["text"])
    predicted = consumer.run(sys.executable, "-c", PREDICT, f"{out}-v1", texts).strip().splitlines()[-1]
    assert json.loads(predicted) == rows["predicted"]


def test_conflicting_lock_files_stop_a_merge_instead_of_being_mixed(author):
    lock = author.path / "dvc.lock"
    original = lock.read_text()
    lines = original.splitlines(keepends=True)
    hashed = [number for number, line in enumerate(lines) if re.search(r" md5: [0-9a-f]{32}$", line)]
    first, last = hashed[0], hashed[-1]
    for branch, number in (("one", first), ("other", last)):
        author.git("checkout", "--quiet", "-b", branch, "main")
        changed = [*lines[:number], f"{lines[number][:-33]}{'f' * 32}\n", *lines[number + 1 :]]
        lock.write_text("".join(changed))
        author.commit(branch)
    printed = author.git("merge", "one", fails=True)
    assert "Cannot merge binary files: dvc.lock" in printed
    assert lock.read_text() == "".join(changed)
    author.git("merge", "--abort")

    # Without the line in .gitattributes Git makes a dvc.lock that no run ever wrote.
    (author.path / ".git/info/attributes").write_text("dvc.lock merge=text\n")
    author.git("merge", "--quiet", "--no-edit", "one")
    assert lock.read_text().count("f" * 32) == 2


def test_a_merge_that_stops_at_the_lock_file_goes_on_as_the_page_says(author):
    page = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"`(git checkout --ours dvc\.lock && [^`]+)`", page)
    for branch, change in (("theirs", {"card": {"license": "mit"}}), ("ours", {"evaluate": {"num_mistakes": 3}})):
        author.git("checkout", "--quiet", "-b", branch, "main")
        author.edit_params(**change)
        author.dvc("repro")
        author.commit(branch)
    assert "Merge conflict in dvc.lock" in author.git("merge", "theirs", fails=True)
    author.run("sh", "-c", recipe, env={"GIT_EDITOR": "true"})
    assert author.git("status", "--porcelain") == ""
    params = yaml.safe_load((author.path / "params.yaml").read_text(encoding="utf-8"))
    assert (params["card"]["license"], params["evaluate"]["num_mistakes"]) == ("mit", 3)
    assert UP_TO_DATE in author.dvc("repro")
    author.run("python", "-m", "apps.verify", "--lock-only")
