"""What a worker's slots have done since the worker started, in all its nodes and pools."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from distributed import Worker as DaskWorker

from skyward_dask.extension.prefixes import PrefixCounts
from skyward_dask.extension.worker.routing import Route
from skyward_dask.extension.worker.thread_slots import ThreadSlots
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.statistics import SlotStatistics

#: The name of the `Counts` in `worker.extensions`, where they outlive an `uninstall`.
_NAME = "skyward-counts"
_COUNTED = ("tasks_done", "crashes", "kills")


class Counts:
    """The counts of one worker.

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
        """The worker's counts, which are created on first use."""
        counts: Counts = worker.extensions.setdefault(_NAME, cls())
        return counts

    def count(self, route: Route) -> None:
        """Count a task that runs, or has run, by that route."""
        with self._lock:
            self._tasks[route] += 1

    def tasks(self) -> list[tuple[str, str, int]]:
        """The number of tasks, by place and reason."""
        with self._lock:
            return [(route.place.value, route.reason.value, n) for route, n in self._tasks.items()]

    def enter(self, pool: Pool) -> None:
        """Count the pool's slots from now on."""
        with self._lock:
            self._pools.add(pool)

    def leave(self, pool: Pool) -> None:
        """The pool has ended: keep the counts of its slots."""
        slots = pool.snapshots(_nothing)
        with self._lock:
            self._pools.discard(pool)
            self._past.update(_counts(slots))

    def slots(self, pool: Pool, usage: Callable[[int], tuple[int, float]]) -> list[SlotStatistics]:
        """The slots of a pool, each with the counts that its index had in other pools added."""
        with self._lock:
            past = Counter(self._past)
            others = self._pools - {pool}
        for other in others:
            past.update(_counts(other.snapshots(_nothing)))
        return [_plus(slot, past) for slot in pool.snapshots(usage)]


def _nothing(pid: int) -> tuple[int, float]:
    return 0, 0.0


def _counts(slots: tuple[SlotStatistics, ...]) -> dict[tuple[int, str], int]:
    return {(slot.index, name): getattr(slot, name) for slot in slots for name in _COUNTED}


def _plus(slot: SlotStatistics, past: Counter[tuple[int, str]]) -> SlotStatistics:
    return replace(slot, **{name: getattr(slot, name) + past[slot.index, name] for name in _COUNTED})
