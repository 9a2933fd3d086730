"""A child's heap: freed memory is used again, and given back when the child has nothing to do.

By its defaults the C library returns a large array's memory when the array dies, and the next one pays for
fresh pages: half of what ``x + 1`` costs.
"""

from __future__ import annotations

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Bytes that are kept at the most: they count in the worker's memory, and against a limit of the next task.
_KEPT = 64 << 20


def keep_warm() -> None:
    """Keep what is freed, up to a limit, for the next array."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def give_back() -> None:
    """Give what is free back to the system, cycles of dead objects included."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
