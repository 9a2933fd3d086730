"""What a node reports to its scheduler about its slots: with each of Dask's heartbeats, or when asked."""

from __future__ import annotations

import logging
from dataclasses import astuple
from typing import Any

from distributed import Worker as DaskWorker

from skyward_dask import __version__
from skyward_dask.extension.patches import Patches
from skyward_dask.extension.registration import NAME
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.pools import Pools
from skyward_dask.extension.worker.probe import probe
from skyward_dask.extension.worker.slot_usage import SlotUsage
from skyward_dask.extension.worker.streams import WorkerStreams
from skyward_dask.slots.features import Feature, available

logger = logging.getLogger(__name__)


class SlotReport:
    """A worker's extension, in Dask's sense: `Worker.heartbeat` sends what this `heartbeat` returns."""

    def __init__(self, worker: DaskWorker, pools: Pools, counts: Counts, usage: SlotUsage) -> None:
        self._worker, self._pools = worker, pools
        self._counts, self._usage = counts, usage

    def begin(self, patches: Patches) -> None:
        """Report to the scheduler and answer it from now on: it has our plugin."""
        patches.entry(self._worker.extensions, NAME, self)
        patches.entry(self._worker.handlers, "skyward_statistics", self.statistics)
        patches.entry(self._worker.handlers, "skyward_check", self.check)

    def heartbeat(self) -> dict[str, Any]:
        """The report, in plain values; it describes the slots' processes as they were last measured."""
        try:
            return self._values()
        except Exception:  # otherwise Dask would close the worker, and its results would be lost
            logger.exception("What the slots of %s have done isn't reported", self._worker.address)
            return {}

    async def statistics(self) -> dict[str, Any]:
        """The same report, after a new measurement."""
        await self._usage.look()
        return self._values()

    def _values(self) -> dict[str, Any]:
        pool, config = self._pools.current, self._pools.config
        slots = self._counts.slots(pool, self._usage.of) if pool is not None else []
        if config.kind == "thread":
            slots = self._counts.threads.snapshots(self._worker.state.nthreads) + slots
        return {
            "executor": config.kind,
            "concurrency": self._worker.state.nthreads,
            "slots": [astuple(slot) for slot in slots],
            "tasks": self._counts.tasks(),
            "prefixes": self._counts.prefixes.values(),
            "streams": self._streams(),
        }

    def _streams(self) -> tuple[int, int, int]:
        hosts = WorkerStreams.of(self._worker).hosts
        return hosts.open, hosts.traffic.items, hosts.traffic.nbytes

    async def check(self, timeout: float) -> dict[str, Any]:
        """What the platform offers, and what is wrong with each process slot."""
        pool = self._pools.current
        return {
            "version": __version__,
            "executor": self._pools.config.kind,
            "features": [feature.value for feature in Feature if available(feature)],
            "slots": await probe(pool, self._worker.state.nthreads, timeout) if pool else [],
        }
