"""Memory on huge pages: what lies there is as it was, and what was there before is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from intents import huge_pages as module
from intents.huge_pages import huge_pages
from tests.conftest import REPOSITORY

SIZE = 32_000_000
SCRIPT = """
import sys
from pathlib import Path
from intents.huge_pages import huge_pages

def on_huge_pages():
    rollup = Path("/proc/self/smaps_rollup").read_text().split()
    return int(rollup[rollup.index("AnonHugePages:") + 1])

pattern = bytes(range(250)) * (int(sys.argv[2]) // 250)
before = bytearray(pattern)
nothing = on_huge_pages()
with huge_pages(sys.argv[1] == "wanted"):
    values = bytearray(pattern)
print(nothing, on_huge_pages())
assert values == pattern == before
values[-1] = 7
assert values[:-1] == pattern[:-1] and values[-1] == 7
"""


def run(wanted):
    command = [sys.executable, "-c", SCRIPT, wanted, str(SIZE)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(figure) for figure in done.stdout.split()]


def test_new_memory_is_put_on_huge_pages_and_keeps_its_values():
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.is_file() or "[madvise]" not in enabled.read_text() or _release() < (6, 1):
        pytest.skip("this system has no huge pages on request: Linux 6.1 or newer, transparent_hugepage=madvise")
    before, after = run("wanted")
    assert before < 1_000  # KiB
    assert 0.8 * SIZE / 1024 < after < 1.4 * SIZE / 1024  # not twice: the first array stays


def test_unwanted_they_are_not_used():
    before, after = run("unwanted")
    assert after == before


def test_a_system_without_them_leaves_the_memory_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SYSTEM", tmp_path / "nowhere")
    monkeypatch.setattr(module, "_MAPPINGS", tmp_path / "nowhere/maps")  # as on systems without /proc
    with huge_pages():
        values = bytearray(1_000_000)
    assert not any(values)


def test_an_administrator_who_switched_them_off_is_obeyed(tmp_path, monkeypatch):
    (tmp_path / "enabled").write_text("always madvise [never]\n", encoding="utf-8")
    (tmp_path / "hpage_pmd_size").write_text("2097152\n", encoding="utf-8")
    monkeypatch.setattr(module, "_SYSTEM", tmp_path)
    monkeypatch.setattr(module, "_MAPPINGS", tmp_path / "nowhere")
    with huge_pages():
        pass


def _release():
    return tuple(int(part) for part in os.uname().release.split(".")[:2])
