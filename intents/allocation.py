"""How this process gets its memory."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have the C library keep the memory that was freed, rather than give it back at once.

    A training step frees and asks for the same few hundred megabytes again: each time the system would map and clear
    them page by page, which takes up to a seventh of the step. Only glibc does so, and only there is this done.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_MMAP_MAX, 0)
