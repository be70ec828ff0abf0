"""Changes intents in tables of labelled texts, and appends rows to them; all else stays as it was.

CSV, TSV and JSONL keep every byte outside the changed cells. Parquet is written anew: the same columns, types and
compression.
"""

import codecs
import csv
import io
import json
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from intents.files import UnixLines, atomic_path

_BYTE_ORDER_MARK = "\ufeff"
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def edit_table(
    path: Path,
    intent_column: str,
    changed: Mapping[int, str],
    added: Sequence[Mapping[str, str]],
    encoding: str = "utf-8",
) -> None:
    """Set the intents of the rows `changed` (row number, as `read_rows` counts, to intent) and append the rows `added`.

    Columns that an added row does not name stay empty. The file is replaced whole or not at all.

    Raises:
        ValueError: an intent or text cannot be written in `encoding`, or the file is no valid CSV.

    """
    suffix = path.suffix.lower()
    if not path.is_symlink() or path.stat().st_mode & _WRITABLE:
        path = path.resolve()  # a link stays one, and what it points to is changed
    # A link to what no one may write is one into DVC's cache: a file takes its place, as after `dvc unprotect`.
    if suffix == ".parquet":
        return _edit_parquet(path, intent_column, changed, added)
    if codecs.lookup(encoding).name == "utf-8-sig":
        encoding = "utf-8"  # which keeps a byte order mark, and adds none
    content = path.read_bytes().decode(encoding, errors="surrogateescape")
    mark = _BYTE_ORDER_MARK if content.startswith(_BYTE_ORDER_MARK) else ""
    content = content.removeprefix(mark)
    if suffix == ".jsonl":
        edited = _edit_jsonl(content, intent_column, changed, added)
    else:
        try:
            edited = _edit_csv(content, "\t" if suffix == ".tsv" else ",", intent_column, changed, added)
        except csv.Error as error:
            raise ValueError(
                f"{path} is not valid CSV ({error}); mend it first, `dvc repro prepare` names the row"
            ) from None
    try:
        encoded = (mark + edited).encode(encoding, errors="surrogateescape")
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise ValueError(f"{path}: {character!r} cannot be written in {encoding} (prepare.encoding)") from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
        _copy_mode(path, temporary)


def _edit_csv(
    content: str, delimiter: str, intent_column: str, changed: Mapping[int, str], added: Sequence[Mapping[str, str]]
) -> str:
    lines = list(io.StringIO(content, newline=""))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = next(reader)
    end = reader.line_num
    parts = lines[:end]
    for number, _ in enumerate(reader, start=2):
        start, end = end, reader.line_num
        record = "".join(lines[start:end])
        parts.append(
            _with_cell(record, delimiter, header.index(intent_column), changed[number]) if number in changed else record
        )
    if added:
        line_end = "\r\n" if parts[0].endswith("\r\n") else "\n"
        if not parts[-1].endswith(("\n", "\r")):
            parts.append(line_end)
        text = io.StringIO(newline="")
        target = text if line_end == "\r\n" else UnixLines(text)
        writer = csv.DictWriter(target, header, restval="", delimiter=delimiter)
        writer.writerows(added)
        parts.append(text.getvalue())
    return "".join(parts)


def _with_cell(record: str, delimiter: str, position: int, value: str) -> str:
    """Return `record` with `value` as its cell at `position`, quoted if the old one was or if it has to be."""
    body = record.rstrip("\r\n")
    cells = re.findall(rf'(?:\A|{delimiter})("(?:[^"]|"")*"|[^{delimiter}]*)', body)
    if cells[position].startswith('"') or any(character in value for character in f'{delimiter}"\r\n'):
        value = '"' + value.replace('"', '""') + '"'
    cells[position] = value
    return delimiter.join(cells) + record[len(body) :]


def _edit_jsonl(
    content: str, intent_column: str, changed: Mapping[int, str], added: Sequence[Mapping[str, str]]
) -> str:
    lines = content.split("\n")
    for number, intent in changed.items():
        lines[number - 1] = _with_value(lines[number - 1], intent_column, intent)
    if added:
        line_end = "\r" if lines[0].endswith("\r") else ""
        if not lines[-1]:
            lines.pop()
        old = json.loads(next(line for line in lines if line.strip())).get(intent_column)
        rows = [{**row, intent_column: _like(old, row[intent_column])} for row in added]
        lines += [*(json.dumps(row, ensure_ascii=content.isascii()) + line_end for row in rows), ""]
    return "\n".join(lines)


def _with_value(line: str, key: str, value: str) -> str:
    """Return the JSON object `line` with `value` under `key`, which it has; all else is written as it was."""
    decoder = json.JSONDecoder()
    at, span = _past_blanks(line, line.index("{") + 1), (0, 0)
    while line[at] != "}":
        name, at = decoder.raw_decode(line, at)
        start = _past_blanks(line, _past_blanks(line, at) + 1)  # past the colon
        _, at = decoder.raw_decode(line, start)
        span = (start, at) if name == key else span  # of a key that is there twice, the last counts
        at = _past_blanks(line, at)
        at = _past_blanks(line, at + 1) if line[at] == "," else at
    new = _like(json.loads(line[span[0] : span[1]]), value)
    return line[: span[0]] + json.dumps(new, ensure_ascii=line.isascii()) + line[span[1] :]


def _like(old: object, intent: str) -> int | str:
    """Return `intent` as a number where `old`, another intent of the file, is one, and it can be one."""
    return int(intent) if type(old) is int and re.fullmatch("-?[0-9]+", intent) else intent


def _past_blanks(line: str, at: int) -> int:
    """Return the position of the first character from `at` on that is no blank of JSON."""
    while line[at] in " \t\r\n":
        at += 1
    return at


def _edit_parquet(
    path: Path, intent_column: str, changed: Mapping[int, str], added: Sequence[Mapping[str, str]]
) -> None:
    with pq.ParquetFile(path) as file:
        table = file.read()
        codec = file.metadata.row_group(0).column(0).compression if file.metadata.num_row_groups else "zstd"
    position = table.schema.get_field_index(intent_column)
    field = table.schema.field(position)
    intents = table.column(position).to_pylist()
    usual: object = next((intent for intent in intents if intent is not None), None)
    for number, intent in changed.items():
        intents[number - 1] = _like(usual, intent)
    rows = [{**row, intent_column: _like(usual, row[intent_column])} for row in added]
    try:
        table = table.set_column(position, field, pa.array(intents, type=field.type))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{path}: its intents are {field.type}, so that they can become no words: {error}") from None
    if added:
        lacking = [other.name for other in table.schema if not other.nullable and other.name not in rows[0]]
        if lacking:
            raise ValueError(
                f"{path}: its column {lacking[0]!r} must have a value in each row, and new rows have none; add them to"
                " the file yourself"
            )
        new = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in table.schema]
        table = pa.concat_tables([table, pa.table(new, schema=table.schema)])
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="none" if codec == "UNCOMPRESSED" else codec)
        _copy_mode(path, temporary)


def _copy_mode(path: Path, new: Path) -> None:
    """Give the file `new` the permissions of `path`, and its owner that of writing."""
    new.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWUSR)
