"""Private views of what the worker lent, and results copied to where it wants them."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from skyward_dask.slots.child_messages import Layout, Place, Target
from skyward_dask.slots.framing import Part
from skyward_dask.slots.memory.leases import anchor
from skyward_dask.slots.memory.mappings import (
    address,
    forget_writes,
    is_clean,
    map_private,
    populate,
    view,
    write_all,
)


class _Lent:
    """Kept alive by a view of something lent; holds the lease."""

    __slots__ = ("__weakref__", "anchor")

    def __init__(self, anchor: mmap.mmap) -> None:
        self.anchor = anchor


@dataclass(slots=True)
class _Known:
    """A segment as its borrower sees it: mapped once as a whole, if the limits allow."""

    fd: int
    size: int
    reading: mmap.mmap | None = None
    writing: mmap.mmap | None = None
    base: int = 0
    populated: set[tuple[int, int]] = field(default_factory=set)


class Borrower:
    """Makes private views of what is lent, and delivers results.

    One lasting mapping of each segment serves all loans of a range, one after the other, so that pages are
    mapped once. What a task wrote is dropped from the mapping before the range is lent again. A range that is
    still in use from an earlier loan gets a mapping of its own.

    Notes
    -----
    `learn`, `borrow` and `tidy` are thread-safe.
    """

    def __init__(self) -> None:
        self._segments: dict[int, _Known] = {}
        self._lock = threading.Lock()
        self._lent: set[tuple[int, int]] = set()
        self._ended: deque[Place] = deque()  # written to by finalizers, at any moment

    def learn(self, new: Iterable[tuple[int, int]], descriptors: Sequence[int]) -> None:
        """Take the descriptors of segments; `new` has (number, size) of each."""
        with self._lock:
            for (number, size), fd in zip(new, descriptors, strict=True):
                if number in self._segments:  # the worker doesn't know whether it arrived before
                    os.close(fd)
                else:
                    self._segments[number] = _Known(fd, size)

    def borrow(self, layout: Layout | None, inline: Sequence[Part], descriptors: Sequence[int]) -> list[Part]:
        """The parts of a form, all writable."""
        if layout is None:
            return list(inline)
        new, leased, places = layout
        self.learn(new, descriptors[: len(new)])
        anchors = {n: anchor(fd) for n, fd in zip(leased, descriptors[len(new) :], strict=True)}
        parts = iter(inline)
        self.tidy()
        with self._lock:
            return [next(parts) if p is None else self._view(p, anchors[p[0]]) for p in places]

    def _view(self, place: Place, held: mmap.mmap) -> memoryview:
        number, first, start, size = place
        known = self._segments[number]
        lent = _Lent(held)
        if (number, first) in self._lent or not _has_mapping(known):
            offset = start - start % mmap.ALLOCATIONGRANULARITY
            return view(map_private(known.fd, start - offset + size, offset), start - offset, size, lent)
        self._lent.add((number, first))
        weakref.finalize(lent, self._ended.append, place).atexit = False
        assert known.reading is not None
        return view(known.reading, start, size, lent)

    def tidy(self) -> None:
        """Drop what was written to loans that have ended."""
        if not self._ended:
            return
        with self._lock:
            while self._ended:
                number, first, start, size = self._ended.popleft()
                known = self._segments[number]
                page = start - start % mmap.PAGESIZE
                if known.reading is not None and not is_clean(known.base + start, size):
                    forget_writes(known.reading, page, start - page + size)
                self._lent.discard((number, first))

    def deliver(self, targets: Sequence[Target], buffers: Sequence[memoryview]) -> None:
        """Copy buffers to the ranges that were granted for them."""
        for target, buffer in zip(targets, buffers, strict=True):
            self._write(target, buffer)

    def _write(self, target: Target, buffer: memoryview) -> None:
        number, start, size, warm = target
        known = self._segments[number]
        if not warm or not _has_writing(known):
            # for fresh pages the system call is faster
            known.populated.discard((start, size))
            write_all(known.fd, start, buffer)
            return
        assert known.writing is not None
        if (start, size) not in known.populated:
            populate(known.writing, start, size)
            known.populated.add((start, size))
        known.writing[start : start + buffer.nbytes] = buffer


def _has_mapping(known: _Known) -> bool:
    """Whether the segment is mapped for reading; maps it if need be and the limits allow."""
    if known.reading is None:
        with suppress(OSError):
            known.reading = map_private(known.fd, known.size)
            known.base = address(known.reading)
    return known.reading is not None


def _has_writing(known: _Known) -> bool:
    if known.writing is None:
        with suppress(OSError):
            known.writing = mmap.mmap(known.fd, known.size)
    return known.writing is not None
