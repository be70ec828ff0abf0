"""Memory on huge pages: the processor finds what it reads with fewer look-ups, above all in a virtual machine."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAPPINGS = Path("/proc/self/maps")
_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage")
_COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1: now, and whatever the mapping was made for

Range = tuple[int, int]


@contextmanager
def huge_pages(wanted: bool = True) -> Iterator[None]:
    """Put the memory that this process gets while it lasts, and still has then, on huge pages.

    Where the system has none (other than Linux, before 6.1, or switched off by its administrator), where it has none
    left, or where they are not `wanted`, the memory stays as it is.
    """
    size = _page_size() if wanted else 0
    before = _writable() if size else []
    yield
    if not size:
        return
    advise = ctypes.CDLL(None).madvise
    for start, end in _writable():
        for page in range(-(-start // size) * size, end - size + 1, size):
            if not any(first <= page and page + size <= last for first, last in before):
                advise(ctypes.c_void_p(page), ctypes.c_size_t(size), _COLLAPSE)


def _page_size() -> int:
    """Return the bytes of a huge page, 0 where there is none to be had."""
    enabled, size = _SYSTEM / "enabled", _SYSTEM / "hpage_pmd_size"
    if not size.is_file() or not enabled.is_file() or "[never]" in enabled.read_text():
        return 0
    return int(size.read_text())


def _writable() -> list[Range]:
    """Return where this process has memory of its own that it may write to and that belongs to no file."""
    found = []
    for line in _MAPPINGS.read_text().splitlines():
        where, mode, _offset, _device, file, *name = line.split()
        if mode == "rw-p" and file == "0" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in where.split("-"))
            found.append((start, end))
    return found
