"""Where tables are: local paths, fsspec URLs (s3://bucket/key), or - for standard input and output."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO
from urllib.parse import urlsplit

import fsspec
from fsspec.utils import infer_compression

from intents.files import beside

FORMATS = ("csv", "tsv", "jsonl", "parquet")
STANDARD = "-"
_EXTRAS = {"s3": "s3", "s3a": "s3"}
# What stores call an object's hash or time of change.
_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "Last-Modified", "modified", "created")
# Stores where an uploaded file appears whole or not at all; elsewhere it is uploaded beside its place and renamed.
_ATOMIC_UPLOADS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"}


def user_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that stand for a mistake or an outage, not for a bug."""
    # Those of botocore share no base with OSError; the module is there if an s3:// URL was opened.
    botocore = sys.modules.get("botocore.exceptions")
    return (ValueError, OSError) if botocore is None else (ValueError, OSError, botocore.BotoCoreError)


def is_remote(place: str) -> bool:
    """Tell whether `place` is a URL of another store than this machine's files."""
    return "://" in place and not place.startswith(("file://", "local://"))


def is_special(place: str) -> bool:
    """Tell whether `place` is a local pipe, socket or device."""
    if is_remote(place):
        return False
    _, path = filesystem_of(place)
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def filesystem_of(place: str) -> tuple[Any, str]:
    """Return the filesystem of `place` and its path there.

    Raises:
        ValueError: there is no such kind of URL, or its package is not installed.

    """
    if "://" not in place:  # fsspec would take :: in a file's name for a chain of stores
        local = fsspec.filesystem("file")
        return local, local._strip_protocol(place)
    protocol = urlsplit(place).scheme
    try:
        filesystem, path = fsspec.core.url_to_fs(place)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        remedy = f"pip install -c constraints.txt -e '.[{extra}]'" if extra else str(error)
        raise ValueError(f"{place}: {protocol}:// needs a package that is not installed: {remedy}") from None
    except ValueError as error:
        raise ValueError(
            f"{place}: {error}; valid are local paths and fsspec's URLs, such as s3://bucket/key"
        ) from None
    return filesystem, path


def format_of(place: str) -> str:
    """Return the format that the suffix of `place` stands for, apart from .gz and the like; "" for none we know."""
    name = place.rsplit("/", 1)[-1].lower()
    if infer_compression(name):
        name = name.rsplit(".", 1)[0]
    suffix = name.rsplit(".", 1)[-1] if "." in name else ""
    return suffix if suffix in FORMATS else ""


def fingerprint_of(place: str) -> str:
    """Return what changes when the file at `place` does: its size and ETag or time."""
    filesystem, path = filesystem_of(place)
    info = filesystem.info(path)
    return f"{info['size']} {next((info[key] for key in _VERSIONS if info.get(key)), '')}"


def size_of(place: str) -> int:
    """Return the stored bytes of the file at `place`, 0 for standard input and for what cannot be read."""
    if place == STANDARD:
        return 0
    filesystem, path = filesystem_of(place)
    try:
        return int(filesystem.size(path) or 0)
    except OSError:
        return 0  # opening it says why


@contextmanager
def open_input(place: str) -> Iterator[BinaryIO]:
    """Open `place` for reading bytes as they are stored."""
    if place == STANDARD:
        yield _stream(sys.stdin, "input").buffer
        return
    filesystem, path = filesystem_of(place)
    with filesystem.open(path, "rb") as file:
        yield file


def _stream(stream: TextIO | None, name: str) -> TextIO:
    if stream is None:  # as after <&- or >&-
        raise ValueError(f"standard {name} is closed; name a file instead of -")
    return stream


@contextmanager
def spooled(file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield `file`, or a copy of it on disk where it cannot seek, as a pipe cannot."""
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


@contextmanager
def atomic_output(place: str) -> Iterator[BinaryIO]:
    """Yield a file for writing that appears at `place` whole, or not at all when the block fails.

    A URL's file is written locally first and uploaded when it is whole. Standard output, a named pipe and a device
    take bytes as they come.
    """
    if place == STANDARD:
        standard = _stream(sys.stdout, "output").buffer
        yield standard
        standard.flush()
        return
    filesystem, path = filesystem_of(place)
    if is_special(place):  # a new file in its place would take /dev/null from the whole machine
        with open(path, "wb") as file:
            yield file
        return
    if is_remote(place):
        handle, name = tempfile.mkstemp(prefix="predict-")
        os.close(handle)
        temporary = Path(name)
    else:
        temporary = beside(Path(path))
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            if os.path.isfile(path) and not os.path.islink(path):  # who may read the answers stays as it was
                temporary.chmod(os.stat(path).st_mode & 0o777 | 0o200)
        except OSError as error:
            raise ValueError(f"OUTPUT {place} cannot be written: {error}") from None
    try:
        with temporary.open("wb") as file:
            yield file
        if is_remote(place):
            _upload(filesystem, temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _upload(filesystem: Any, temporary: Path, path: str) -> None:
    protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else set(filesystem.protocol)
    if protocols & _ATOMIC_UPLOADS:
        filesystem.put_file(str(temporary), path)
    else:
        filesystem.makedirs(filesystem._parent(path), exist_ok=True)
        filesystem.put_file(str(temporary), f"{path}.part")
        filesystem.mv(f"{path}.part", path)
    filesystem.invalidate_cache()
