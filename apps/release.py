"""Puts together what people elsewhere need: the checkpoint with its model card, and the ONNX files, in one folder.

    python -m apps.release build/release

The folder is laid out as the Hugging Face Hub wants it: README.md beside the weights, ONNX files under onnx/, with what
the export gate measured.
"""

import argparse
import shutil
from pathlib import Path

from intents.calibrations import read_calibration
from intents.cli import run
from intents.exported import MODEL_FILES, TOKENIZER_FILE, check_file, read_settings
from intents.files import atomic_path, sha256_of

CLASSIFIER_DIR = Path("models/classifier")
ONNX_DIR = Path("models/onnx")
EXPORT_METRICS_PATH = Path("metrics/export.json")


def release(target: Path) -> None:
    """Write the checkpoint and its ONNX files to the folder `target`.

    Raises:
        ValueError: `target` is there already, or the pipeline has not made all the parts, or not of one classifier, or
            one of them is damaged.

    """
    if target.exists():
        raise ValueError(f"{target} exists already: remove it or name another folder")
    missing = [str(part) for part in (CLASSIFIER_DIR, ONNX_DIR, EXPORT_METRICS_PATH) if not part.exists()]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: run `dvc repro`, or `dvc pull`")
    settings = read_settings(ONNX_DIR)
    if settings.checkpoint_sha256 != sha256_of(CLASSIFIER_DIR / "model.safetensors"):
        raise ValueError(f"{ONNX_DIR} was exported from another classifier than {CLASSIFIER_DIR}: run `dvc repro`")
    if settings.calibration != read_calibration(CLASSIFIER_DIR, settings.intents):
        raise ValueError(f"{ONNX_DIR} has another calibration than {CLASSIFIER_DIR}: run `dvc repro`")
    for name in (*MODEL_FILES.values(), TOKENIZER_FILE):
        check_file(ONNX_DIR / name, settings.files.get(name), verify=True)
    _check_made_together()
    with atomic_path(target, folder=True) as folder:
        shutil.copytree(CLASSIFIER_DIR, folder)
        shutil.copytree(ONNX_DIR, folder / "onnx")
        shutil.copyfile(EXPORT_METRICS_PATH, folder / "onnx/metrics.json")


def _check_made_together() -> None:
    """Make sure that the checkpoint, the ONNX files and the metrics are what dvc.lock says, if there is one.

    After `git checkout` without `dvc checkout` they are of two runs: Git holds the metrics, DVC the files.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo() as repo:
            stages = [stage for stage in repo.index.stages if getattr(stage, "name", None) in ("card", "export")]
            changed = [str(out) for stage in stages for out in stage.outs if out.hash_info and out.status()]
    except (NotDvcRepoError, SCMError):  # the parts were copied out of theirs
        return
    except DvcException as error:
        raise ValueError(error) from None
    if changed:
        raise ValueError(
            f"{' and '.join(changed)}: not what the stages wrote, by dvc.lock: run `dvc repro`, or"
            f" `git checkout {EXPORT_METRICS_PATH} && dvc checkout`"
        )


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder to write; must not exist yet")
    folder = parser.parse_args().folder
    release(folder)
    print(f"{folder} holds the checkpoint, its card and the ONNX files")


if __name__ == "__main__":
    run(main)
