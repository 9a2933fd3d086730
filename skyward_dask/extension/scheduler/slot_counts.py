"""How many slots of each worker the scheduler may fill with tasks: all but those that streams hold.

The task of a stream is finished, so Dask counts it no more, though its generator may compute. The worker
reports how many of its streams do.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Scheduler
from distributed.metrics import time
from distributed.scheduler import WorkerState, WorkerStatusPlugin

from skyward_dask.extension.streams.names import HELD

#: Seconds between two looks at messages that leave within 5 ms.
_LOOK = 0.001


class SlotCounts:
    """The slots of each worker, and how many of them streams hold."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._slots: dict[str, int] = {}
        self._held: dict[str, int] = {}
        scheduler.stream_handlers[HELD] = self.hold

    def of(self, ws: WorkerState) -> int:
        """How many slots a worker has, whoever holds them."""
        return self._slots.get(ws.address, ws.nthreads)

    def set(self, ws: WorkerState, slots: int) -> None:
        """A worker has that many slots."""
        if slots == self.of(ws):
            return
        self._slots[ws.address] = slots
        self._correct(ws)
        self._scheduler.total_nthreads_history.append((time(), self._scheduler.total_nthreads))
        # by itself, the cluster object learns a worker's identity only when the worker joins
        for observer in self._observers():
            observer.add_worker(self._scheduler, ws.address)

    async def wait_told(self) -> None:
        """Wait until cluster objects have been sent these counts."""
        for observer in self._observers():
            while observer.bcomm.buffer and not observer.bcomm.closed():
                await asyncio.sleep(_LOOK)

    def _observers(self) -> list[WorkerStatusPlugin]:
        plugins = self._scheduler.plugins.values()
        return [plugin for plugin in plugins if isinstance(plugin, WorkerStatusPlugin)]

    def hold(self, held: int, worker: str, **_: Any) -> None:
        """Streams of a worker compute in that many of its slots; called with a message of the worker."""
        if (ws := self._scheduler.workers.get(worker)) is not None:
            self._slots.setdefault(worker, ws.nthreads)
            self._held[worker] = held
            self._correct(ws)

    def forget(self, worker: str) -> None:
        """The worker has left."""
        self._slots.pop(worker, None)
        self._held.pop(worker, None)

    def _correct(self, ws: WorkerState) -> None:
        """Correct every count that Dask subtracts from when the worker is lost."""
        scheduler = self._scheduler
        # Dask divides by this number, and must not take the worker for one that can do nothing
        seen = max(1, self.of(ws) - self._held.get(ws.address, 0))
        more, ws.nthreads = seen - ws.nthreads, seen
        scheduler.total_nthreads += more
        scheduler.host_info[ws.host]["nthreads"] += more
        scheduler.check_idle_saturated(ws)
        if more > 0:
            scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=f"skyward-slots-{time()}")
