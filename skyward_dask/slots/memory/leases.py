"""Whether a range is still mapped: a lock that the kernel keeps for as long as any process maps it.

A *lease* is a descriptor of a segment, opened for this purpose, with read locks on the ranges that are lent.
Such a lock ("open file description lock") belongs to the open file description, not to a process. A process
that gets the descriptor maps a page of it, its *anchor*, and closes the descriptor: a mapping keeps the file
open. So the lock ends when the last process that has the anchor ends, unmaps it or executes another program:
the kernel accounts for forked grandchildren, killed processes and those that close all their descriptors. A
descriptor that was never received is closed with its socket.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable

#: struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")


def lease(fd: int, ranges: Iterable[tuple[int, int]]) -> int:
    """A new descriptor of the same file, with a lock on each (start, size); the caller closes it."""
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        for start, size in _merged(ranges):
            fcntl.fcntl(own, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, size, 0))
    except BaseException:
        os.close(own)
        raise
    return own


def is_leased(fd: int, start: int, size: int) -> bool:
    """Whether anybody has a lease on any byte of the range; `fd` itself has none."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, size, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def anchor(fd: int) -> mmap.mmap:
    """Hold a lease by a mapping, and close its descriptor; the lease ends with the mapping."""
    try:
        return mmap.mmap(fd, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    finally:
        os.close(fd)


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge adjacent ranges: each lock is an entry in a list that the kernel walks."""
    merged: list[tuple[int, int]] = []
    for start, size in sorted(ranges):
        if merged and start <= sum(merged[-1]):
            first = merged[-1][0]
            merged[-1] = first, max(sum(merged[-1]), start + size) - first
        else:
            merged.append((start, size))
    return merged
