"""Shared memory of a pool: a few large memfds, whose ranges are given out and taken back.

```
 Segments ── allocate ──▶ Range ── view ──▶ arrays in the worker (each keeps its Range alive)
    ▲                       │ dies
    └── housekeeper ◀── SimpleQueue: written to from finalizers, which may run anywhere
```

The worker owns all ranges; children map what they are told to. A range whose last view has been freed is
reused when nobody has a lease on it any more. Until then it waits in quarantine. Free ranges keep their pages
for a while: writing into fresh ones costs several times as much. The pages are given back to the system when
no range has been taken for a second, when there are too many, or when the worker is short of memory.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from skyward_dask.errors import SharedMemoryError
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.memory import headroom
from skyward_dask.slots.memory.extents import Extents
from skyward_dask.slots.memory.leases import is_leased, lease
from skyward_dask.slots.memory.mappings import forget_writes, punch, rounded
from skyward_dask.slots.memory.segment import Range, Segment, memfd

#: Bytes from which shared memory is faster than the socket, including the round trip to get a range.
SHARE_FROM = 256 * 1024
#: Bytes of one segment, unless a range needs more. Address space, not memory: large, so that a few
#: descriptors are enough, and small compared with a limit on address space (`ulimit -v`).
SEGMENT = 1 << 30
#: Bytes of free pages that are kept warm: several results of a usual size.
WARM = 1 << 30
#: Seconds without an allocation after which free pages are given back: longer than the pause between a user's
#: calls.
IDLE = 1.0
#: Bytes of fresh pages that may be taken before the next check whether the machine has them.
_UNCHECKED = 16 << 20
#: Bytes that are left to others when fresh pages are taken.
_RESERVE = 64 << 20
#: The most ranges in quarantine that one allocation looks at, so that their number can't slow it down.
_LOOKS = 64


class Segments:
    """The ranges of a pool.

    Parameters
    ----------
    share_from : int
        Size in bytes from which a buffer is worth a range.
    is_pressed : callable
        Returns whether the worker is short of memory: free pages are then given back at once.

    Notes
    -----
    Thread-safe. Ranges outlive `close`: a segment is closed with its last range.
    """

    def __init__(self, share_from: int, is_pressed: Callable[[], bool] = lambda: False) -> None:
        self.share_from = share_from
        self._is_pressed = is_pressed
        self._lock = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._warm, self._cold = Extents(), Extents()
        self._quarantine: list[tuple[int, int, int]] = []
        self._dropped: queue.SimpleQueue[tuple[int, int, int] | None] = queue.SimpleQueue()
        self._unchecked = 0
        self._taken_at = 0.0
        self._owner = os.getpid()
        self._closed = False
        self._housekeeper: threading.Thread | None = None

    def allocate(self, size: int) -> Range:
        """A range for `size` bytes.

        Raises
        ------
        SharedMemoryError
            The machine doesn't have the memory, or a limit of the worker doesn't allow it.
        """
        size = rounded(size)
        with self._lock:
            self._taken_at = time.monotonic()
            if self._closed:
                raise SharedMemoryError("the pool is shut down and gives out no memory")
            self._take_back_dropped()
            self._look_at_quarantine(_LOOKS)
            if (place := self._warm.take(size)) is not None:
                return self._give(place, size, warm=True)
            self._check_room(size)
            place = self._cold.take(size) or self._grown(size)
            return self._give(place, size, warm=False)

    def copy(self, data: memoryview) -> Range:
        """A range that holds a copy of the data."""
        taken = self.allocate(data.nbytes)
        taken.write(data)
        return taken

    def find(self, where: int, size: int) -> Range | None:
        """The range that holds these bytes of the worker's memory, if one does."""
        with self._lock:
            found = (segment.find(where, size) for segment in self._segments.values())
            return next(filter(None, found), None)

    def trim(self) -> None:
        """Give the pages of all free ranges back to the system."""
        with self._lock:
            if not self._closed:
                self._take_back_dropped()
                self._look_at_quarantine(len(self._quarantine))
                self._cool()

    def resident(self) -> int:
        """Bytes of memory that the segments use."""
        # without the lock: the thread that holds it may call this
        return sum(os.fstat(segment.fd).st_blocks * 512 for segment in tuple(self._segments.values()))

    def close(self) -> None:
        """Give out no more ranges; those in use stay until they are dropped."""
        self.trim()
        with self._lock:
            self._closed = True
            thread = self._housekeeper
        if thread is not None:
            self._dropped.put(None)
            thread.join()
        for extent in iter(self._next_dropped, None):
            self._drop(*extent)
        for number in [number for number, segment in self._segments.items() if not segment.ranges]:
            del self._segments[number]

    # --- giving out; with the lock held -----------------------------------------------------------

    def _give(self, place: tuple[int, int], size: int, warm: bool) -> Range:
        number, start = place
        given = self._segments[number].give(start, size, warm)
        weakref.finalize(given, self._drop, number, start, size).atexit = False
        return given

    def _check_room(self, size: int) -> None:
        self._unchecked += size
        if self._unchecked < _UNCHECKED:
            return
        free = headroom.available()
        if free is not None and size + _RESERVE > free:
            self._cool()
            raise SharedMemoryError(
                f"{size:,} bytes of shared memory aren't available: {free:,} are left on this machine or in "
                "its control group. Let tasks return less at a time, or drop results that are no longer "
                "needed."
            )
        self._unchecked = 0

    def _grown(self, size: int) -> tuple[int, int]:
        number = len(self._segments)
        try:
            segment = Segment.create(number, max(SEGMENT, size))
        except OSError:
            segment = self._smaller(number, size)
        self._segments[number] = segment
        if segment.size > size:
            self._cold.add(number, size, segment.size - size)
        if self._housekeeper is None:
            self._housekeeper = threading.Thread(
                target=self._keep_house, name="skyward-segments", daemon=True
            )
            self._housekeeper.start()
        return number, 0

    def _smaller(self, number: int, size: int) -> Segment:
        """A segment of just that size: a limit of the process doesn't allow a large one."""
        try:
            return Segment.create(number, size)
        except OSError as error:
            raise SharedMemoryError(
                f"{size:,} bytes of shared memory aren't available: {error!r}. A limit of the worker's "
                "process may be too low: see `ulimit -v` and `ulimit -n`."
            ) from error

    # --- taking back --------------------------------------------------------------------------------

    def _drop(self, number: int, start: int, size: int) -> None:
        """A range was dropped. Called by finalizers, at any moment in any thread: it must not take a lock."""
        if os.getpid() != self._owner:
            return  # a forked process drops its copy
        if not self._closed:
            self._dropped.put((number, start, size))
            return
        segment = self._segments[number]
        if not is_leased(segment.fd, start, size):
            punch(segment.fd, start, size)
        segment.take_back(start)
        if not segment.ranges:
            del self._segments[number]

    def _next_dropped(self) -> tuple[int, int, int] | None:
        try:
            return self._dropped.get_nowait()
        except queue.Empty:
            return None

    def _take_back_dropped(self) -> None:
        for extent in iter(self._next_dropped, None):
            self._take_back(extent)

    def _take_back(self, extent: tuple[int, int, int]) -> None:
        number, start, size = extent
        segment = self._segments[number]
        segment.take_back(start)
        forget_writes(segment.map, start, size)
        if is_leased(segment.fd, start, size):
            self._quarantine.append(extent)
        else:
            self._recycle(extent)

    def _look_at_quarantine(self, count: int) -> None:
        looked, self._quarantine = self._quarantine[:count], self._quarantine[count:]
        for extent in looked:
            if is_leased(self._segments[extent[0]].fd, *extent[1:]):
                self._quarantine.append(extent)
            else:
                self._recycle(extent)

    def _recycle(self, extent: tuple[int, int, int]) -> None:
        if self._warm.total + extent[2] > WARM or self._is_pressed():
            self._cool_one(extent)
        else:
            self._warm.add(*extent)

    def _cool(self) -> None:
        for extent in self._warm.clear():
            self._cool_one(extent)

    def _cool_one(self, extent: tuple[int, int, int]) -> None:
        number, start, size = extent
        punch(self._segments[number].fd, start, size)
        self._cold.add(number, start, size)

    # --- the housekeeper's thread -----------------------------------------------------------------

    def _keep_house(self) -> None:
        while True:
            try:
                extent = self._dropped.get(timeout=self._patience())
            except queue.Empty:
                self._trim_if_idle()
                continue
            if extent is None:
                return
            with self._lock:
                self._take_back(extent)

    def _patience(self) -> float | None:
        with self._lock:
            return IDLE if self._warm.total or self._quarantine else None

    def _trim_if_idle(self) -> None:
        if time.monotonic() - self._taken_at >= IDLE:
            self.trim()


def create(share_from: int | None, **options: Any) -> Segments | None:
    """Shared memory as the platform and the setting allow; None if everything goes over sockets."""
    if share_from is None or not is_supported():
        return None
    return Segments(share_from, **options)


def is_supported() -> bool:
    """Whether the platform has all that ranges need."""
    if not available(Feature.MEMFD):
        return False
    try:
        fd = memfd()
    except (AttributeError, OSError):
        return False
    try:
        os.close(lease(fd, [(0, 1)]))
    except (AttributeError, OSError):  # no such locks, or no /proc
        return False
    finally:
        os.close(fd)
    return True
