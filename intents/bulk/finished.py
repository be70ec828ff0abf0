"""Which parts of a run were answered by an earlier one that was cut short."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intents.bulk.answering import Counts
from intents.bulk.parts import Part
from intents.bulk.places import filesystem_of, fingerprint_of
from intents.files import sha256_of

_STATE_DIR = ".predict"


class FinishedParts:
    """Remembers, in a hidden folder of the output, which parts are answered, by what and from what.

    A part counts as finished while its output, its input, the model and the settings are the same.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any]) -> None:
        self._folder = f"{folder}/{_STATE_DIR}"
        self._settings = dict(settings)

    def find(self, part: Part) -> Counts | None:
        """Return the rows of `part` if it is finished, else None."""
        filesystem, path = filesystem_of(f"{self._folder}/{part.name}.json")
        try:
            state = json.loads(filesystem.cat_file(path))
            now = {"made_from": self.made_from(part), "output": fingerprint_of(part.target)}
            if {name: state[name] for name in now} != now:
                return None
            return Counts(state["rows"], state["bad"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return None  # cut short while it was written, or an older version's

    def add(self, part: Part, counts: Counts, made_from: dict[str, Any]) -> None:
        """Remember that `part` is finished; `made_from` describes its input as it was before it was read."""
        filesystem, path = filesystem_of(f"{self._folder}/{part.name}.json")
        filesystem.makedirs(filesystem._parent(path), exist_ok=True)
        output = fingerprint_of(part.target)
        state = {"made_from": made_from, "output": output, "rows": counts.rows, "bad": counts.bad}
        filesystem.pipe_file(path, json.dumps(state).encode())

    def made_from(self, part: Part) -> dict[str, Any]:
        """Return what the answers to `part` depend on, its input as it is now included."""
        return {**self._settings, "input": fingerprint_of(part.source.place)}


def sha256_of_classifier(folder: Path) -> str:
    """Return one SHA-256 for the names and contents of the files in `folder`, the model card aside."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md"):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
