"""Shared memory of a process of this machine to which there is no Unix socket: it is opened through /proc.

It isn't mapped: what is read is copied, so its owner needs to keep it only until then.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from skyward_dask.slots.memory.mappings import address
from skyward_dask.slots.memory.segment import Range, Segment


def whereabouts(segment: Segment) -> tuple[str | int, ...]:
    """Where a neighbour finds this process's segment: boot, process, descriptor; and its device and inode."""
    found = os.fstat(segment.fd)
    return _boot(), os.getpid(), segment.fd, found.st_dev, found.st_ino


def open_neighbour(where: Sequence[str | int]) -> int | None:
    """A descriptor of a neighbour's segment; None if it is on another machine, or may not be opened."""
    boot, pid, fd, *wanted = where
    if not boot or boot != _boot():
        return None
    try:
        # in another container, or when that process has ended, something else may have these numbers
        opened = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    found = os.fstat(opened)
    if [found.st_dev, found.st_ino] == wanted:
        return opened
    os.close(opened)
    return None


def read_into(fd: int, start: int, buffer: memoryview) -> None:
    """Fill the buffer with what is at an offset."""
    while buffer.nbytes:
        count = os.preadv(fd, [buffer], start)
        if not count:
            raise EOFError("a neighbour's shared memory ends too early")
        start, buffer = start + count, buffer[count:]


def range_of(view: memoryview) -> tuple[Range, int] | None:
    """The range that a view keeps in use, and where its bytes are in the segment; None for other memory."""
    kept = getattr(view.obj, "keep", None)
    return (kept, address(view) - kept.segment.base) if isinstance(kept, Range) else None


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
