"""The memory and CPU time of a worker's slots: measured in one place, and counted as the worker's own.

Measuring a process costs 0.1 ms, and 1 ms if it has mapped shared memory; a node may have 64 slots, and Dask
asks ten times a second. So a helper thread measures them twice a second, and everybody else reads its
results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
from distributed import Worker as DaskWorker

from skyward_dask.extension import private
from skyward_dask.extension.patches import Patches
from skyward_dask.extension.worker.shared_memory import SharedMemory
from skyward_dask.slots.aside import aside
from skyward_dask.slots.own_memory import own_memory
from skyward_dask.slots.statistics import process_usage

#: Seconds for which a measurement is reused: Dask's monitor and its heartbeat need a new one this often.
_HOLDS = 0.5
#: Minimum seconds between two measurements from which CPU usage is computed: the system counts CPU time in
#: hundredths of a second.
_SHORTEST = 0.1


@dataclass(frozen=True, slots=True)
class _Look:
    """One measurement: bytes of all slots' own memory; resident bytes and CPU seconds of each process."""

    at: float = field(default_factory=time.monotonic)
    own: int = 0
    usage: dict[int, tuple[int, float]] = field(default_factory=dict)


class SlotUsage:
    """The measurement of a node's slots.

    Parameters
    ----------
    worker : distributed.Worker
    pids : callable
        Returns the process ids of its slots.
    shared : SharedMemory
    helpers : concurrent.futures.Executor
    """

    def __init__(
        self, worker: DaskWorker, pids: Callable[[], list[int]], shared: SharedMemory, helpers: Executor
    ) -> None:
        self._worker, self._pids = worker, pids
        self._shared, self._helpers = shared, helpers
        self.last = _Look()
        self._asked = 0.0

    def count_as_the_workers(self, patches: Patches) -> None:
        """Have Dask's monitor of the worker count the slots too."""
        monitor = self._worker.monitor
        private.count_memory(patches, self._worker, self.memory)
        patches.attribute(monitor, "proc", ProcessWithSlots(monitor.proc, self))

    def memory(self) -> int:
        """Bytes of the slots' own memory, as of half a second ago, and of shared memory; from any thread."""
        due = time.monotonic() - self._asked > _HOLDS
        if due and threading.get_ident() == self._worker.thread_id:
            self._asked = time.monotonic()
            with suppress(RuntimeError):  # the node is ending, and has shut down its helpers
                self._helpers.submit(self._look, self._pids())
            self._shared.is_pressed()  # a paused worker wouldn't check it otherwise, and has forms to drop
        return self.last.own + self._shared.unseen()

    def of(self, pid: int) -> tuple[int, float]:
        """Resident bytes and CPU seconds of a process, as last measured."""
        return self.last.usage.get(pid, (0, 0.0))

    async def look(self) -> None:
        """Measure now."""
        await aside(self._helpers, self._look, self._pids())

    def _look(self, pids: Sequence[int]) -> None:
        self.last = _Look(own=sum(map(own_memory, pids)), usage={pid: process_usage(pid) for pid in pids})


class ProcessWithSlots:
    """Stands in for the process object that a worker's monitor reads.

    Parameters
    ----------
    process : psutil.Process
        The worker's process.
    slots : SlotUsage
    """

    def __init__(self, process: psutil.Process, slots: SlotUsage) -> None:
        self._process, self._slots = process, slots
        self._seen, self._percent = slots.last, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    def cpu_percent(self) -> float:
        """Percent of one core, between the last two measurements; a process new in the last doesn't count."""
        look, seen = self._slots.last, self._seen
        if (lasting := look.at - seen.at) > _SHORTEST:
            done = sum(cpu - seen.usage.get(pid, (0, cpu))[1] for pid, (_, cpu) in look.usage.items())
            self._seen, self._percent = look, 100 * done / lasting
        return float(self._process.cpu_percent()) + self._percent
