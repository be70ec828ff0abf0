import csv
import errno
import hashlib
import json
import os
import resource
import shutil
import socket
import subprocess

import pyarrow as pa
import pytest

from intents.files import atomic_path, beside, sha256_of, write_csv, write_json, write_text
from intents.tables import intents_of, read_fact, table_writer, with_facts, write_table

SCHEMA = pa.schema([("text", pa.string())])


@pytest.fixture
def full_disk(tmp_path):
    """A real file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def limited_file_size():
    """Files of this process cannot grow past 64 KiB: the kernel refuses, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_pipe_or_device_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is neither a file nor a folder"):
        write_text(tmp_path / "pipe", "new")
    assert (tmp_path / "pipe").is_fifo()


def noise(size):
    """Text that does not compress."""
    return os.urandom(size // 2).hex()


def test_an_error_while_writing_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of")
        raise RuntimeError("crash")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_earlier_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path, folder=True) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("new")
        raise RuntimeError("crash")
    assert (path / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "stale").write_text("old")
    with atomic_path(path, folder=True) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("new")
    assert [file.name for file in path.iterdir()] == ["weights"]


def test_what_a_killed_run_left_behind_is_in_nobodys_way(tmp_path):
    path = tmp_path / "model"
    leftover = tmp_path / f".model.{socket.gethostname()[:32]}.{os.getpid()}.part"
    leftover.mkdir()
    (leftover / "half").write_text("x")
    with atomic_path(path) as temporary:
        temporary.mkdir()
    assert list(tmp_path.iterdir()) == [path]
    assert not list(path.iterdir())


def test_a_full_disk_leaves_the_earlier_text(full_disk):
    path = full_disk / "out.txt"
    write_text(path, "earlier")
    with pytest.raises(OSError) as caught:
        write_text(path, noise(200_000))
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "earlier"
    assert list(full_disk.iterdir()) == [path]


def test_a_full_disk_leaves_the_earlier_table(full_disk):
    path = full_disk / "out.parquet"
    write_table(path, {"text": ["earlier"]}, SCHEMA)
    earlier = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        write_table(path, {"text": [noise(1000) for _ in range(300)]}, SCHEMA)
    assert path.read_bytes() == earlier
    assert list(full_disk.iterdir()) == [path]


def test_a_refused_write_leaves_the_earlier_files(tmp_path, limited_file_size):
    text, table = tmp_path / "out.txt", tmp_path / "out.parquet"
    write_text(text, "earlier")
    write_table(table, {"text": ["earlier"]}, SCHEMA)
    earlier = table.read_bytes()
    with pytest.raises(OSError):
        write_text(text, noise(200_000))
    with pytest.raises(OSError):
        write_table(table, {"text": [noise(1000) for _ in range(300)]}, SCHEMA)
    assert text.read_text() == "earlier"
    assert table.read_bytes() == earlier
    assert sorted(tmp_path.iterdir()) == [table, text]


def test_text_is_utf_8_with_unix_line_ends(tmp_path):
    write_text(tmp_path / "deep/er/out.txt", "a\nü 車\n")
    assert (tmp_path / "deep/er/out.txt").read_bytes() == "a\nü 車\n".encode()


def test_json_keeps_other_alphabets_readable(tmp_path):
    write_json(tmp_path / "out.json", {"intent": "öffnen"})
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == '{\n  "intent": "öffnen"\n}\n'


def test_sha256_of_a_file_larger_than_one_block(tmp_path):
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_tables_of_the_same_rows_are_the_same_bytes_and_carry_their_facts(tmp_path):
    schema = with_facts(SCHEMA, intents=["öffnen", "b"], max_length=7)
    for name in ("one", "deeper/two"):
        write_table(tmp_path / name, {"text": ["x", "y"]}, schema)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "deeper/two").read_bytes()
    assert intents_of(tmp_path / "one") == ["öffnen", "b"]
    assert read_fact(tmp_path / "one", "max_length") == 7


def test_a_foreign_table_is_named_as_such(tmp_path):
    write_table(tmp_path / "foreign.parquet", {"text": ["x"]}, SCHEMA)
    with pytest.raises(ValueError, match=r"foreign.parquet carries no 'intents'.*run `dvc repro`"):
        intents_of(tmp_path / "foreign.parquet")


def test_a_table_appears_only_when_all_of_it_was_written(tmp_path):
    path = tmp_path / "out.parquet"
    with pytest.raises(RuntimeError), table_writer(path, SCHEMA) as writer:
        writer.write_table(pa.table({"text": ["x"]}, schema=SCHEMA))
        raise RuntimeError("crash")
    assert not list(tmp_path.iterdir())


def test_a_table_is_written_with_its_header_even_where_it_has_no_rows(tmp_path):
    write_csv(tmp_path / "a.csv", [{"text": 'say "a, b"\nnow', "share": 0.5}])
    assert (tmp_path / "a.csv").read_bytes() == b'text,share\n"say ""a, b""\nnow",0.5\n'
    write_csv(tmp_path / "a.csv", [], ("text", "share"))
    assert (tmp_path / "a.csv").read_bytes() == b"text,share\n"
    write_csv(tmp_path / "a.csv", [])
    assert (tmp_path / "a.csv").read_bytes() == b""


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(tmp_path):
    (tmp_path / "reports/2026").mkdir(parents=True)
    (tmp_path / "reports/2026/notes.txt").write_text("precious")
    for write in (lambda path: write_text(path, "new"), lambda path: write_csv(path, [{"a": 1}])):
        with pytest.raises(ValueError, match="reports is a folder; name a file"):
            write(tmp_path / "reports")
    with pytest.raises(ValueError, match="notes.txt is a file; name a folder"):
        with atomic_path(tmp_path / "reports/2026/notes.txt", folder=True):
            raise AssertionError("never reached")
    assert (tmp_path / "reports/2026/notes.txt").read_text() == "precious"


def test_whatever_a_cell_holds_a_csv_file_is_read_back_as_it_was_written(tmp_path):
    cells = ["wipers\ron", "two\nlines", "both\r\n", 'a "quote"', "a, comma", " plain "]
    write_csv(tmp_path / "a.csv", [{"text": cell, "row": str(row)} for row, cell in enumerate(cells)])
    assert (tmp_path / "a.csv").read_bytes().startswith(b'text,row\n"wipers\ron",0\n')
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == cells


def test_a_link_to_a_folder_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "big/model").mkdir(parents=True)
    (tmp_path / "model").symlink_to("big/model")
    with atomic_path(tmp_path / "model", folder=True) as folder:
        folder.mkdir()
        (folder / "weights").write_text("new")
    assert (tmp_path / "model").is_symlink() and (tmp_path / "big/model/weights").read_text() == "new"
    assert sorted(path.name for path in (tmp_path / "big").iterdir()) == ["model"]


def test_a_mount_point_is_refused_before_anything_is_made_or_lost(full_disk):
    (full_disk / "weights").write_text("old")
    with pytest.raises(ValueError, match="small is a mount point, which cannot be replaced"):
        with atomic_path(full_disk, folder=True):
            pytest.fail("began to write")
    assert (full_disk / "weights").read_text() == "old"


def test_a_folder_that_cannot_take_its_place_gives_it_back_to_the_former_one(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "model", folder=True):
        pass  # nothing was written
    assert (tmp_path / "model/weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_run_of_the_same_process_id_left_is_in_nobodys_way(tmp_path):
    path = tmp_path / "model"
    former = beside(path).with_suffix(".former")
    for left in (former, beside(path), path):
        left.mkdir()
        (left / "weights").write_text(left.name)
    with atomic_path(path, folder=True) as folder:
        folder.mkdir()
        (folder / "weights").write_text("new")
    assert (path / "weights").read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["model"]


def test_a_run_killed_between_taking_away_and_putting_there_has_lost_nothing(tmp_path):
    path = tmp_path / "model"
    former = beside(path).with_suffix(".former")
    former.mkdir()
    (former / "weights").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path, folder=True):
        raise RuntimeError("crash")
    assert (path / "weights").read_text() == "old"
