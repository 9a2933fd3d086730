"""The thread slots of a node, and the task that each of them runs."""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
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
        self._done: Counter[int] = Counter()
        self._cpu: defaultdict[int, float] = defaultdict(float)

    @contextmanager
    def run(self, key: Any) -> Iterator[Occupied]:
        """Give the task, which the calling thread runs in the block, a slot."""
        begun, first = thread_time(), self.occupy(key)
        occupied = Occupied(self, key, first)
        try:
            yield occupied
        finally:
            occupied.leave()
            with self._lock:
                self._done[first] += 1
                self._cpu[first] += thread_time() - begun

    def occupy(self, key: Any) -> int:
        """Give the task a slot; returns the slot's index."""
        with self._lock:
            index = next(n for n in count() if n not in self._keys)
            self._keys[index] = key
            return index

    def vacate(self, key: Any, index: int) -> None:
        """The task no longer has this slot; it may have seceded before."""
        with self._lock:
            if self._keys.get(index) == key:
                del self._keys[index]

    def secede(self, key: Any) -> None:
        """The task continues outside its slot: free the slot."""
        with self._lock:
            self._keys = {index: running for index, running in self._keys.items() if running != key}

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


@dataclass(slots=True)
class Occupied:
    """A task's slot, which it may leave for a while."""

    slots: ThreadSlots
    key: Any
    index: int

    def leave(self) -> None:
        self.slots.vacate(self.key, self.index)

    def resume(self) -> None:
        self.index = self.slots.occupy(self.key)
