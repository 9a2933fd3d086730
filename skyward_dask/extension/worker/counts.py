"""What a worker's slots have done since it started, whatever nodes and pools they have been in."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

from distributed import Worker as DaskWorker

from skyward_dask.extension.prefixes import PrefixCounts
from skyward_dask.extension.worker.routing import Route
from skyward_dask.extension.worker.thread_slots import ThreadSlots
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.slot import SlotSnapshot

#: Under this name in `worker.extensions`, where it outlives an `uninstall`.
_NAME = "skyward-tally"
_COUNTED = ("tasks_done", "crashes", "kills")


class Counts:
    """The counts of one worker.

    Attributes
    ----------
    threads : ThreadSlots
    prefixes : PrefixCounts

    Notes
    -----
    Thread-safe.
    """

    def __init__(self) -> None:
        self.threads, self.prefixes = ThreadSlots(), PrefixCounts()
        self._lock = threading.Lock()
        self._tasks: Counter[Route] = Counter()
        self._pools: set[Pool] = set()
        self._past: Counter[tuple[int, str]] = Counter()

    @classmethod
    def of(cls, worker: DaskWorker) -> Counts:
        """The worker's own."""
        tally: Counts = worker.extensions.setdefault(_NAME, cls())
        return tally

    def count(self, route: Route) -> None:
        """A task runs, or has run, there."""
        with self._lock:
            self._tasks[route] += 1

    def tasks(self) -> list[tuple[str, str, int]]:
        """Places, reasons, and how many tasks."""
        with self._lock:
            return [(route.place.value, route.reason.value, n) for route, n in self._tasks.items()]

    def enter(self, pool: Pool) -> None:
        """The pool's slots count from now on."""
        with self._lock:
            self._pools.add(pool)

    def leave(self, pool: Pool) -> None:
        """The pool has ended; what its slots have done stays."""
        slots = pool.snapshots()
        with self._lock:
            self._pools.discard(pool)
            self._past.update(_counts(slots))

    def slots(self, pool: Pool) -> list[SlotSnapshot]:
        """The slots of a pool, with what those of the others have done under the same index."""
        with self._lock:
            past = Counter(self._past)
            others = self._pools - {pool}
        for other in others:
            past.update(_counts(other.snapshots()))
        return [_plus(slot, past) for slot in pool.snapshots()]


def _counts(slots: tuple[SlotSnapshot, ...]) -> dict[tuple[int, str], int]:
    return {(slot.index, name): getattr(slot, name) for slot in slots for name in _COUNTED}


def _plus(slot: SlotSnapshot, past: Counter[tuple[int, str]]) -> SlotSnapshot:
    return replace(slot, **{name: getattr(slot, name) + past[slot.index, name] for name in _COUNTED})
