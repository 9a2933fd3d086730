"""What tasks have used, added up by the prefix of their keys."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import add
from time import thread_time, time
from typing import Any

from dask.utils import key_split
from distributed import Reschedule

from skyward_dask.errors import SlotCrashed, SlotOutOfMemory, TaskTimeout


@dataclass(frozen=True, slots=True)
class PrefixStatistics:
    """The tasks whose keys begin alike: those of one function, as Dask names them.

    Attributes
    ----------
    count : int
        Runs that have ended, including repeated ones, but not cancelled ones.
    cpu : float
        Their CPU seconds. In a process slot, where a task is alone, these are exact, and include those of
        the processes that it has waited for; in a thread slot, they are those of its thread.
    wall : float
        Their elapsed seconds, from when the worker had the task to when it had the result.
    peak_memory : int
        The most bytes of its own memory that the process of one of them used, without inputs that it only
        read, and with about 45 MB for Python and its imports; 0 in thread slots, where this is unknown.
    memory_limit_hits, timeouts, crashes : int
        How many were ended by their `memory_limit`, by their `timeout`, or with their process.
    """

    count: int
    cpu: float
    wall: float
    peak_memory: int
    memory_limit_hits: int
    timeouts: int
    crashes: int


_PEAK = [field.name for field in fields(PrefixStatistics)].index("peak_memory")
#: The values of `PrefixStatistics` in their order.
_Values = Sequence[float]


class PrefixCounts:
    """The counts of one worker.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, _Values] = {}

    def add(self, key: Any, cpu: float, wall: float, peak: int, error: BaseException | None) -> None:
        """Count one run of a task, by how it has ended; a cancelled one isn't counted."""
        if isinstance(error, Reschedule):
            return
        over = isinstance(error, SlotOutOfMemory)
        peak = max(peak, error.peak) if isinstance(error, SlotOutOfMemory) else peak
        crashed = isinstance(error, SlotCrashed) and not over
        run = 1, cpu, wall, peak, int(over), int(isinstance(error, TaskTimeout)), int(crashed)
        prefix = key_split(key)
        with self._lock:
            self._counts[prefix] = _sum(self._counts[prefix], run) if prefix in self._counts else run

    def thread(self, key: Any) -> _Measured:
        """A block that measures and counts the task that the calling thread runs in it."""
        return _Measured(self, key)

    def values(self) -> dict[str, _Values]:
        """The counts of each prefix, in plain values."""
        with self._lock:
            return dict(self._counts)


class _Measured:
    """A task in a thread, from the beginning of a block to its end."""

    __slots__ = ("_began", "_counts", "_cpu", "_key")

    def __init__(self, counts: PrefixCounts, key: Any) -> None:
        self._counts, self._key = counts, key

    def __enter__(self) -> None:
        self._began, self._cpu = time(), thread_time()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._counts.add(self._key, thread_time() - self._cpu, time() - self._began, 0, error)


def _sum(one: _Values, other: _Values) -> _Values:
    added = list(map(add, one, other))
    added[_PEAK] = max(one[_PEAK], other[_PEAK])
    return added


def added_up(counts: Iterable[Mapping[str, _Values]]) -> dict[str, PrefixStatistics]:
    """The counts of several workers together."""
    together: dict[str, _Values] = {}
    for counted in counts:
        for prefix, values in counted.items():
            together[prefix] = _sum(together[prefix], values) if prefix in together else values
    return {prefix: PrefixStatistics(*values) for prefix, values in sorted(together.items())}  # type: ignore[arg-type]
