"""A child's heap: freed memory is reused, and given back to the system when the child has nothing to do.

By default, the C library returns a large array's memory when the array is freed, and the next array pays for
fresh pages: half of what ``x + 1`` costs.
"""

from __future__ import annotations

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The most bytes that are kept: they count as the worker's memory, and towards the memory limit of the next
#: task.
_KEPT = 64 << 20


def keep_warm() -> None:
    """Keep what is freed, up to a limit, for the next array."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def give_back() -> None:
    """Give free memory back to the system, including that of garbage cycles."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
