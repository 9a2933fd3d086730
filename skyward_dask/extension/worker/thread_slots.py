"""The thread slots of a node, and the task that each of them runs."""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from heapq import heappop, heappush
from time import thread_time
from typing import Any

from skyward_dask.slots.statistics import SlotStatistics


class ThreadSlots:
    """Slot indices of tasks in threads: a task has the lowest free index until it ends or secedes.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[int, Any] = {}
        self._free: list[int] = []  # a heap of the indices below the number of slots ever used at once
        self._done: Counter[int] = Counter()
        self._cpu: defaultdict[int, float] = defaultdict(float)

    def run(self, key: Any) -> Occupied:
        """A block in which the calling thread runs the task, in a slot."""
        return Occupied(self, key)

    def count(self, index: int, cpu: float) -> None:
        """A task has ended that began in this slot."""
        with self._lock:
            self._done[index] += 1
            self._cpu[index] += cpu

    def occupy(self, key: Any) -> int:
        """Give the task a slot; returns the slot's index."""
        with self._lock:
            index = heappop(self._free) if self._free else len(self._keys)
            self._keys[index] = key
            return index

    def vacate(self, key: Any, index: int) -> None:
        """The task no longer has this slot; it may have seceded before."""
        with self._lock:
            if self._keys.get(index) == key:
                self._free_up(index)

    def secede(self, key: Any) -> None:
        """The task continues outside its slot: free the slot."""
        with self._lock:
            for index in [index for index, running in self._keys.items() if running == key]:
                self._free_up(index)

    def _free_up(self, index: int) -> None:
        del self._keys[index]
        heappush(self._free, index)

    def index_of(self, key: Any) -> int | None:
        """The slot of a running task; None if it has none."""
        with self._lock:
            return next((index for index, running in self._keys.items() if running == key), None)

    def snapshots(self, slots: int) -> list[SlotStatistics]:
        """That number of slots as they are now, and any above it whose tasks haven't ended yet."""
        with self._lock:
            return [self._snapshot(index) for index in range(max([slots, *(n + 1 for n in self._keys)]))]

    def _snapshot(self, index: int) -> SlotStatistics:
        key = self._keys.get(index)
        return SlotStatistics(
            index,
            "idle" if key is None else "busy",
            os.getpid(),
            None if key is None else str(key),
            self._done[index],
            crashes=0,
            kills=0,
            memory=0,
            cpu=self._cpu[index],
        )


class Occupied:
    """A task's slot, in a block; the task may leave it for a while."""

    __slots__ = ("_begun", "_first", "_index", "_key", "_slots")

    def __init__(self, slots: ThreadSlots, key: Any) -> None:
        self._slots, self._key = slots, key

    def __enter__(self) -> Occupied:
        self._begun = thread_time()
        self._first = self._index = self._slots.occupy(self._key)
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()
        self._slots.count(self._first, thread_time() - self._begun)

    def leave(self) -> None:
        self._slots.vacate(self._key, self._index)

    def resume(self) -> None:
        self._index = self._slots.occupy(self._key)
