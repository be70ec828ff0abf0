"""Files that are either written whole or not at all."""

import csv
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def atomic_path(path: Path, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on an error it is removed.

    The temporary path is to become a file, or a `folder`: each replaces only its own kind.

    Raises:
        ValueError: as `check_replaceable`.

    """
    check_replaceable(path, folder)
    if folder and path.is_symlink():  # the folder is elsewhere, on a larger disk for instance; the link stays
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    former = temporary.with_suffix(".former")
    # A killed run with the same process id, common in containers, leaves them.
    _remove(temporary)
    if path.exists():
        _remove(former)
    elif former.exists():
        os.replace(former, path)
    try:
        yield temporary
        if path.is_dir():
            os.replace(path, former)
        os.replace(temporary, path)
    finally:
        if former.exists() and not path.exists():
            os.replace(former, path)
        _remove(temporary)
        _remove(former)


def check_replaceable(path: Path, folder: bool = False) -> None:
    """Raise ValueError where a file, or a `folder`, could not be put at `path` in the place of what is there."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is neither a file nor a folder; name another output")
    if path.exists() and path.is_dir() != folder:
        raise ValueError(f"{path} is a {'file; name a folder' if folder else 'folder; name a file'}")
    if folder and os.path.ismount(os.path.realpath(path)):  # of a link it never says so
        raise ValueError(f"{path} is a mount point, which cannot be replaced; mount the folder above it")


def beside(path: Path) -> Path:
    """Return the path beside `path` that this process alone writes to; in containers process ids are often the same."""
    return path.with_name(f".{path.name}.{socket.gethostname()[:32]}.{os.getpid()}.part")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with Unix line ends, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class UnixLines:
    """What a csv.writer writes to, so that the lines of `file` end as on Unix and all that needs quotes has them.

    Python 3.11's writer quotes a carriage return, at which readers end the row, only where its own lines end in one:
    leave it the end that it has by itself, carriage return and line feed.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        """Write a line that ends in carriage return and line feed."""
        return self._file.write(line[:-2] + "\n")


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, encoding: str = "utf-8"
) -> None:
    """Write `rows` under a header of `columns`, or of the first row's keys, whole or not at all."""
    if columns is None:
        columns = list(rows[0]) if rows else []
    with atomic_path(path) as temporary, temporary.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(UnixLines(file), columns)
        if columns:
            writer.writeheader()
        writer.writerows(rows)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file at `path`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
