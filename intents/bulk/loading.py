"""Opens a folder with a classifier, whichever of the two kinds it is; what the other kind needs is not imported."""

from pathlib import Path

from intents.bulk.scoring import Scorer
from intents.exported import MODEL_FILES

DEFAULT_VARIANT = "int8"


def has_model(folder: Path) -> bool:
    """Tell whether `folder` holds a classifier of either kind."""
    return is_onnx(folder) or (folder / "config.json").is_file()


def is_onnx(folder: Path) -> bool:
    """Tell whether `folder` is an exported classifier."""
    return any((folder / name).is_file() for name in MODEL_FILES.values())


def load_scorer(folder: Path, variant: str = DEFAULT_VARIANT, num_threads: int | None = None) -> Scorer:
    """Return the classifier in `folder`: exported (then `variant` is int8 or fp32) or a checkpoint.

    `num_threads` None uses every core.

    Raises:
        ValueError: the folder holds neither.

    """
    if is_onnx(folder):
        from intents.bulk.onnx_scoring import OnnxScorer

        return OnnxScorer(folder, variant, num_threads)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name the folder that holds the classifier")
    if not has_model(folder):
        raise ValueError(
            f"{folder} holds no classifier (neither model.onnx nor config.json): run `dvc repro`, or"
            f" `dvc pull {folder}`"
        )
    from intents.bulk.torch_scoring import TorchScorer

    return TorchScorer(folder, num_threads)
