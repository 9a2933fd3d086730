"""The children of a node: the pool that takes new runs, and older pools that finish the runs they have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import cloudpickle
from distributed import Worker as DaskWorker

from skyward_dask.config import Worker
from skyward_dask.errors import SlotStartFailed
from skyward_dask.extension.child.worker_facade import Introduction
from skyward_dask.extension.log_records import Levels
from skyward_dask.extension.private import is_registered
from skyward_dask.extension.registration import TOPIC
from skyward_dask.extension.worker.configuration import pickled_configuration
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.failed_setup import close_with_error
from skyward_dask.extension.worker.task_log import TaskLog
from skyward_dask.settings import grace
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.output import Sink
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.preparation import Preparation

logger = logging.getLogger(__name__)


class Pools:
    """A node's configuration, and the pools of children created for it. Used on the worker's loop only.

    Parameters
    ----------
    worker : distributed.Worker
    counts : Counts
    pages : Segments or None
        Shared memory.
    helpers : concurrent.futures.Executor
    log : TaskLog
        Takes what tasks print.

    Attributes
    ----------
    config : Worker
    current : Pool or None
        The pool that takes new runs; None on a node of threads until a task asks for a process.
    """

    def __init__(
        self, worker: DaskWorker, counts: Counts, pages: Segments | None, helpers: Executor, log: TaskLog
    ) -> None:
        self._worker, self._counts = worker, counts
        self._pages, self._helpers, self._log = pages, helpers, log
        self._own_nthreads: int = worker.state.nthreads
        self.config = Worker()
        self.current: Pool | None = None
        self._all: set[Pool] = set()
        self._watching: set[asyncio.Task[None]] = set()

    @property
    def size(self) -> int:
        """The number of slots that the node should have."""
        return self.config.concurrency or self._own_nthreads

    async def begin(self, config: Worker) -> Pool | None:
        """Switch to this configuration; returns the previous pool, which must be retired.

        A new pool takes the old one's place when its first child is ready.

        Raises
        ------
        SlotStartFailed
            Children can't start; nothing has changed.
        """
        pool = await self._started(config) if config.kind == "process" else None
        previous, self.current, self.config = self.current, pool, config
        return previous

    async def _started(self, config: Worker) -> Pool:
        pool = self._new(config, eager=True)
        if not (is_registered(self._worker) or config.env or config.pre_import or config.initializer):
            # imports take over a second, and no code of the user's can fail: the worker may join meanwhile
            self._watch(self._close_unless_it_starts(pool))
            return pool
        try:
            await pool.wait_ready()
        except BaseException:
            pool.end()
            await self._await_closed(pool)
            raise
        return pool

    async def _close_unless_it_starts(self, pool: Pool) -> None:
        try:
            await pool.wait_ready()
        except asyncio.CancelledError:
            return  # the pool was ended first
        except SlotStartFailed as error:
            if pool is self.current and not is_closing(self._worker):
                logger.exception("This worker's slots can't start, and it closes")
                close_with_error(self._worker, error)

    def begin_late(self) -> Pool:
        """Create a pool on a node of threads, for the first task that asks for a process."""
        self.current = self._new(self.config, eager=False)
        return self.current

    def _new(self, config: Worker, eager: bool) -> Pool:
        preparation = Preparation(
            config.env,
            config.pre_import,
            config.initializer,
            "skyward_dask.extension.child.task:start",
            self._introduction(),
            config.health_check,
        )
        pool = Pool(
            config.concurrency or self._own_nthreads,
            preparation,
            self._pages,
            self._helpers,
            max_tasks=config.max_tasks_per_child,
            grace=grace(),
            eager=eager,
            sink=Sink(self._log.write, self._log.show, self._log.watched.line),
            on_event=self._log_event,
        )
        self._all.add(pool)
        self._counts.enter(pool)
        return pool

    def _introduction(self) -> bytes:
        worker = self._worker
        introduction = Introduction(
            worker.contact_address or worker.address,
            worker.name,
            worker.id,
            worker.local_directory,
            worker.scheduler.address,
            worker.security,
            pickled_configuration(),
            Levels.now(),
        )
        pickled: bytes = cloudpickle.dumps(introduction)
        return pickled

    def _log_event(self, event: str, slot: int, pid: int) -> None:
        if not is_closing(self._worker):
            self._worker.log_event(TOPIC, {"action": event, "slot": slot, "pid": pid})

    def resize(self, slots: int) -> None:
        """Change the number of slots; if it is lowered, runs above it finish first."""
        self.config = replace(self.config, concurrency=slots)
        if self.current is not None:
            self.current.resize(slots)

    def renew(self) -> None:
        """Replace all children, because what they know of the worker is out of date."""
        if self.current is not None:
            self.current.renew(self._introduction())

    def pids(self) -> list[int]:
        """The process ids of all children."""
        return [pid for pool in self._all for pid in pool.pids()]

    # --- the end of a pool ----------------------------------------------------------------------------

    def retire(self, pool: Pool | None) -> None:
        """Close a pool when its last run has ended."""
        if pool is not None:
            pool.close()
            self._watch(self._await_closed(pool))

    def _watch(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _await_closed(self, pool: Pool) -> None:
        await pool.wait_closed()
        self._counts.leave(pool)
        self._all.discard(pool)

    async def wait_retired(self) -> None:
        """Wait until all retired pools have closed."""
        await asyncio.gather(*self._watching)

    async def end(self) -> None:
        """End every child now."""
        for pool in self._all:
            pool.end()
        await asyncio.gather(*(pool.wait_closed() for pool in self._all))
        await self.wait_retired()


def is_closing(worker: DaskWorker) -> bool:
    """Whether the worker is closing, has closed or has failed."""
    return worker.status.name in ("closing", "closed", "failed")
