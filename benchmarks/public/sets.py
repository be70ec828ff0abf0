"""The public data sets as source files of the pipeline."""

import csv
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from intents.files import sha256_of, write_csv

ROOT = Path(__file__).resolve().parents[2]
DATA_VARIABLE = "INTENTS_PUBLIC_DATA"
COLUMNS = ("text", "label")
BANKING77 = {"train": ["banking77/train.csv"], "test": ["banking77/test.csv"]}
CLINC150 = {split: [f"clinc150/{split}.csv", f"clinc150/oos_{split}.csv"] for split in ("train", "validation", "test")}
SETS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "banking77": BANKING77,
    "clinc150": CLINC150,
    "clinc150-oos-plus": CLINC150 | {"train": ["clinc150/train.csv", "clinc150/variants/oos_train_plus.csv"]},
    "banking77-10-shot": BANKING77,
    "banking77-10-shot-unlabelled": BANKING77,
}
FEW_SHOT = {"banking77-10-shot": {"train": 10, "validation": 20}}  # rows per intent, drawn from train
WITH_UNLABELLED = {"banking77-10-shot-unlabelled"}  # the texts of train that were not drawn come along without labels
# Like another set in its sample and settings, but for what its own file says.
LIKE = {"banking77-10-shot-unlabelled": "banking77-10-shot", "clinc150-oos-plus": "clinc150"}
OFFICIAL_TRAIN_SHA256 = "0a3ecb72a9ca5f1ed4fcf06031f7a7d0dcf7e0adb484eff722c6025e0c761209"
# Of the training rows that seeds 0 to 4 draw from it: another random generator would show here.
SAMPLES_SHA256 = (
    "6d2e107c4c6c39703b40b5ecfa9d7d7b7520820ed0613d690ffa17d0558f4fbe",
    "82a7ceb01346bb284a409b80195de116f423aefdd31b647d34b9d541e9a39539",
    "bc8f3d2c8ac4f850c4de4149d0a19210fc62aae7ebd77223d11fbda700ffcffe",
    "76c10444c48652be387bf56451da66c73600d8b8a072e13b4285dc1016d64486",
    "8eb1860a5bee63a1dab3dd4b1ded6c35b3b5baa08378b5f4e292cf5da3dad4ac",
)

Rows = list[dict[str, str]]


def data_dir() -> Path:
    """Return the folder with the public data, which may not exist."""
    return Path(os.environ.get(DATA_VARIABLE, ROOT.parent / "shared/data"))


def missing_files(name: str) -> list[Path]:
    """Return the files of a set that are not there."""
    paths = [data_dir() / file for files in SETS[name].values() for file in files]
    return [path for path in paths if not path.is_file()]


def write_sources(name: str, seed: int, folder: Path) -> dict[str, Path]:
    """Write the source files of a set to `folder`; return them by the paths that its settings give them.

    A few-shot set is another sample for every seed.

    Raises:
        ValueError: a sample is not the one that the seed stands for.

    """
    rows = {split: [row for file in files for row in _read(data_dir() / file)] for split, files in SETS[name].items()}
    num_per_intent = FEW_SHOT.get(LIKE.get(name, name))
    if num_per_intent:
        drawn = draw(rows["train"], num_per_intent, seed)
        if name in WITH_UNLABELLED:
            taken = {row["text"] for drawn_rows in drawn.values() for row in drawn_rows}
            rows["unlabelled"] = [{"text": row["text"]} for row in rows["train"] if row["text"] not in taken]
        rows |= drawn
        folder = folder / f"seed-{seed}"
    paths = {split: folder / f"{split}.csv" for split in rows}
    for split, path in paths.items():
        write_csv(path, rows[split], COLUMNS if split != "unlabelled" else COLUMNS[:1])
    if num_per_intent:
        _check_sample(paths["train"], seed)
    return {f"data/public/{split}.csv": path for split, path in paths.items()}


def draw(rows: Rows, num_per_intent: Mapping[str, int], seed: int) -> dict[str, Rows]:
    """Return so many rows of every intent for each split, no row twice, in the order of `rows`."""
    chance = random.Random(seed)
    drawn: dict[str, set[int]] = {split: set() for split in num_per_intent}
    for intent in sorted({row["label"] for row in rows}):
        numbers = [number for number, row in enumerate(rows) if row["label"] == intent]
        chance.shuffle(numbers)
        for split, wanted in num_per_intent.items():
            drawn[split].update(numbers[:wanted])
            numbers = numbers[wanted:]
    return {split: [rows[number] for number in sorted(numbers)] for split, numbers in drawn.items()}


def _check_sample(path: Path, seed: int) -> None:
    official = sha256_of(data_dir() / BANKING77["train"][0]) == OFFICIAL_TRAIN_SHA256
    if official and seed < len(SAMPLES_SHA256) and sha256_of(path) != SAMPLES_SHA256[seed]:
        raise ValueError(
            f"{path} is not the sample of seed {seed} (SHA-256 {sha256_of(path)}, expected {SAMPLES_SHA256[seed]}):"
            " the random generator of this Python draws other rows; use another Python version"
        )


def _read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
