"""One piece of shared memory, and the ranges of it that are in use."""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from bisect import bisect_right, insort
from dataclasses import dataclass, field

from skyward_dask.slots.memory.mappings import address, map_private, view, write_all

_MFD_NOEXEC_SEAL = 0x8  # Linux 6.3; the call fails on kernels that don't know it


class Range:
    """Bytes of a segment that are in use as long as this object lives.

    Attributes
    ----------
    segment : Segment
    start, size : int
        In bytes, whole pages.
    warm : bool
        Whether it had pages when it was given out.
    """

    __slots__ = ("__weakref__", "segment", "size", "start", "warm")

    def __init__(self, segment: Segment, start: int, size: int, warm: bool) -> None:
        self.segment = segment
        self.start = start
        self.size = size
        self.warm = warm

    def view(self, start: int, size: int) -> memoryview:
        """Writable bytes at an offset of the segment; only this process sees what is written."""
        return view(self.segment.map, start, size, keep=self)

    def write(self, data: memoryview) -> None:
        """Write data to the beginning of the range, visible to all processes; other threads run meanwhile."""
        write_all(self.segment.fd, self.start, data)


@dataclass(slots=True, weakref_slot=True, eq=False)
class Segment:
    """One memfd, mapped privately in the worker."""

    number: int
    fd: int
    size: int
    map: mmap.mmap
    base: int
    starts: list[int] = field(default_factory=list)
    ranges: dict[int, weakref.ref[Range]] = field(default_factory=dict)

    @classmethod
    def create(cls, number: int, size: int) -> Segment:
        fd = memfd()
        try:
            os.ftruncate(fd, size)
            _seal(fd)
            mapping = map_private(fd, size)
        except BaseException:
            os.close(fd)
            raise
        segment = cls(number, fd, size, mapping, address(mapping))
        weakref.finalize(segment, os.close, fd).atexit = False
        return segment

    def give(self, start: int, size: int, warm: bool) -> Range:
        """Give out a range, which is in use until it is taken back."""
        given = Range(self, start, size, warm)
        insort(self.starts, start)
        self.ranges[start] = weakref.ref(given)
        return given

    def take_back(self, start: int) -> None:
        """A range that was given out has been dropped."""
        del self.ranges[start]
        del self.starts[bisect_right(self.starts, start) - 1]

    def find(self, where: int, size: int) -> Range | None:
        """The range that holds these bytes of the worker's memory."""
        start = where - self.base
        position = bisect_right(self.starts, start)
        if not 0 <= start < self.size or not position:
            return None
        found = self.ranges[self.starts[position - 1]]()
        return found if found and start + size <= found.start + found.size else None


def memfd() -> int:
    """Memory that has a descriptor and no name."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("skyward-segment", flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("skyward-segment", flags)


def _seal(fd: int) -> None:
    """Prevent truncation: reading what was cut off would kill the reader."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
