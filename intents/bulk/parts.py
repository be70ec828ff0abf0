"""A run's parts: which input goes to which output."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.utils import glob_translate, infer_compression

from intents.bulk.places import FORMATS, STANDARD, filesystem_of, format_of, is_remote, is_special
from intents.bulk.reading import Source

_MAGIC = set("*?[")


@dataclass(frozen=True)
class Part:
    """One table to answer, `name` within its run, and where its answers go."""

    name: str
    source: Source
    target: str
    target_format: str


@dataclass(frozen=True)
class Plan:
    """The parts of a run, in order, and the folder that they go to (None: a single table).

    `left_out` are the files of an input folder that are no tables, or hidden as a table whose name begins with _ is.
    """

    parts: list[Part]
    folder: str | None
    left_out: tuple[str, ...] = ()


def plan_parts(
    input_place: str,
    output_place: str,
    text_column: str,
    encoding: str,
    input_format: str | None,
    output_format: str | None,
) -> Plan:
    """Return what to do, in the order of the parts' names: one part for a file or -, one per table of a folder or glob.

    Formats come from the suffixes; the formats given are for - and for files without a suffix of ours, and
    `output_format` also converts a folder.

    Raises:
        ValueError: there is no table at `input_place`, a format is unknown, or an output would be an input.

    """
    for name, place in (("INPUT", input_place), ("OUTPUT", output_place)):
        if not place:
            raise ValueError(f"{name} is empty; give a file, a folder, a URL or -")
    if input_place == STANDARD:
        return Plan([_single(STANDARD, output_place, text_column, encoding, input_format, output_format)], None)
    filesystem, path = filesystem_of(input_place)
    if filesystem.isfile(path):
        place = _place(input_place, filesystem, path)
        return Plan([_single(place, output_place, text_column, encoding, input_format, output_format)], None)
    base, paths, left_out = _find_tables(input_place, filesystem, path, input_format)
    if output_place == STANDARD or format_of(output_place) or _is_local_file(output_place):
        raise ValueError(f"{input_place} is {len(paths)} tables: OUTPUT must be a folder, got {output_place!r}")
    parts = []
    for found in paths:
        name = found[len(base) :].lstrip("/")
        target_name = name if output_format is None else f"{_stem(name)}.{output_format}"
        target = f"{output_path_of(output_place)}/{target_name}"
        kind = format_of(found) or str(input_format)
        source = Source(_place(input_place, filesystem, found), kind, text_column, encoding)
        parts.append(Part(target_name, source, target, output_format or format_of(target) or kind))
    doubles = [name for name, times in Counter(part.name for part in parts).items() if times > 1]
    if doubles:
        raise ValueError(f"several inputs would be written to {doubles[0]}; leave out --output-format")
    _refuse_own_inputs(parts, _identity(_place(input_place, filesystem, base or "/")), path[len(base) :])
    return Plan(parts, output_path_of(output_place), tuple(left_out))


def output_path_of(place: str) -> str:
    """Return `place` without a trailing slash, absolute if it is a local path: workers elsewhere may read it."""
    return place.rstrip("/") if is_remote(place) else os.path.abspath(filesystem_of(place)[1])


def _single(
    source: str,
    target: str,
    text_column: str,
    encoding: str,
    input_format: str | None,
    output_format: str | None,
) -> Part:
    kind = input_format or format_of(source)
    if target != STANDARD and not is_remote(target) and os.path.isdir(filesystem_of(target)[1]):
        raise ValueError(f"OUTPUT {target} is a folder, INPUT a single table; name a file")
    if target != STANDARD and not format_of(target) and not output_format:
        valid = ", ".join(FORMATS)
        raise ValueError(f"OUTPUT {target!r}: unknown suffix; valid: {valid}, or give --output-format")
    target_kind = output_format or format_of(target) or kind
    if not kind:
        named = "standard input has no suffix" if source == STANDARD else f"{source}: unknown suffix"
        raise ValueError(f"{named}; give --input-format {'|'.join(FORMATS)}")
    if STANDARD == source and kind == "jsonl" and target_kind != "jsonl":
        raise ValueError(
            "JSONL from standard input can only become JSONL: a table's columns must be known before its first row;"
            " save the input as a file first, or give --output-format jsonl"
        )
    if target != STANDARD:
        target = output_path_of(target)
        if source != STANDARD and _names(target) & _names(source):
            raise ValueError(f"OUTPUT {target} is INPUT: choose another name")
    return Part(target.rsplit("/", 1)[-1], Source(source, kind, text_column, encoding), target, target_kind)


def _refuse_own_inputs(parts: Sequence[Part], base: str, pattern: str) -> None:
    """Raise ValueError if answers would overwrite an input, or be the input of the next run.

    The inputs are those in the folder `base` that match the glob `pattern`; "" are all of them.
    """
    sources = {name for part in parts for name in _names(part.source.place)}
    matches = re.compile(glob_translate(glob.escape(base.rstrip("/")) + pattern)).match
    for part in parts:
        if _names(part.target) & sources:
            raise ValueError(f"OUTPUT {part.target} is one of the inputs, and would be lost; choose another folder")
        target = _identity(part.target)
        if matches(target) if pattern.strip("/") else _within(target, base):
            raise ValueError(f"OUTPUT {part.target} lies within INPUT: its answers would be read as texts")


def _identity(place: str) -> str:
    """Return the one name of what `place` is a name of, links resolved."""
    filesystem, path = filesystem_of(place)
    return str(filesystem.unstrip_protocol(path)) if is_remote(place) else os.path.realpath(path)


def _names(place: str) -> set[Any]:
    """Return what tells files apart: the one name and, of a file on this machine, what the file system calls it.

    A folder that is mounted twice, or letters that the file system takes for others, give a file two names.
    """
    if is_remote(place) or not os.path.exists(place):
        return {_identity(place)}
    status = os.stat(place)
    return {_identity(place), (status.st_dev, status.st_ino)}


def _find_tables(
    input_place: str, filesystem: Any, path: str, input_format: str | None
) -> tuple[str, list[str], list[str]]:
    """Return the folder that names are relative to, the paths of the tables, and the names that are left out.

    With `input_format` files of unknown suffixes are tables too.
    """
    if _MAGIC & set(path) and not filesystem.isdir(path):
        fixed = path[: min(path.index(sign) for sign in _MAGIC if sign in path)]
        base, found = fixed.rsplit("/", 1)[0], filesystem.glob(path)
        found = [match for match in found if filesystem.isfile(match)]
    elif filesystem.isdir(path):
        base = path.rstrip("/")
        found = filesystem.find(path) if is_remote(input_place) else _local_files(path)
    elif is_special(input_place):
        raise ValueError(f"INPUT {input_place} is not a regular file; pipe it in, with - as INPUT")
    else:
        raise ValueError(f"INPUT {input_place} does not exist")
    # An object whose name ends in / stands for a folder.
    names = {part: part[len(base) :].lstrip("/") for part in sorted(found) if not part.endswith("/")}
    shown = [part for part, name in names.items() if not _begins(name, ".")]
    tables = [part for part in shown if not _begins(names[part], "_") and (format_of(part) or input_format)]
    if not is_remote(input_place):  # a pipe would keep the others waiting; a link to nowhere is a part that fails
        tables = [part for part in tables if not os.path.exists(part) or os.path.isfile(part)]
    if not tables:
        raise ValueError(
            f"INPUT {input_place} holds no table; valid suffixes: {', '.join(FORMATS)}, or give --input-format"
        )
    # What begins with _ and is no table, such as Spark's _SUCCESS, is nobody's data.
    chosen = set(tables)
    passed_over = [part for part in shown if part not in chosen]
    return base, tables, [names[part] for part in passed_over if format_of(part) or not _begins(names[part], "_")]


def _local_files(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of all that is within `folder` and no folder; links to folders are followed, but to none above.

    A folder that may not be read is itself yielded, so that it is named.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        names = sorted(os.listdir(folder))
    except PermissionError:
        if not above:
            raise
        yield folder
        return
    for path in (os.path.join(folder, name) for name in names):
        if os.path.isdir(path):
            yield from _local_files(path, (*above, here))
        else:
            yield path


def _begins(name: str, sign: str) -> bool:
    return any(piece.startswith(sign) for piece in name.split("/"))


def _place(input_place: str, filesystem: Any, path: str) -> str:
    return str(filesystem.unstrip_protocol(path)) if is_remote(input_place) else path


def _is_local_file(place: str) -> bool:
    return not is_remote(place) and os.path.isfile(filesystem_of(place)[1])


def _within(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def _stem(name: str) -> str:
    if infer_compression(name):
        name = name.rsplit(".", 1)[0]
    return name.rsplit(".", 1)[0]
