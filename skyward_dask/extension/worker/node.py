"""A node: one dask-worker with slots, from the moment it gets them until they are removed.

```
 Node ─┬─ SlotExecutor   where each task runs, and the runs that are under way
       ├─ Pools          the configuration, and the children started for it
       ├─ Values         what the worker holds for its slots
       ├─ WorkerStreams  the streams whose generators are in the worker or its slots
       ├─ SlotUsage      the memory and CPU time of the children
       └─ SlotReport     what the scheduler is told
```

The plugin comes and goes; the node holds the state. Everything here runs on the worker's loop, except the
tasks of thread slots.
"""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from distributed import Worker as DaskWorker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.threadpoolexecutor import ThreadPoolExecutor as DaskThreads

from skyward_dask.config import Worker
from skyward_dask.extension import private
from skyward_dask.extension.batching import INTERVAL_PER_SLOT, Pace
from skyward_dask.extension.patches import Patches
from skyward_dask.extension.registration import introduce
from skyward_dask.extension.worker.collector import collect_less
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.pools import Pools, is_closing
from skyward_dask.extension.worker.profile import CallStacks
from skyward_dask.extension.worker.scheduler_link import (
    introduce_node,
    report_slots,
    slots_told,
    watchers_told,
)
from skyward_dask.extension.worker.shared_memory import SharedMemory
from skyward_dask.extension.worker.slot_executor import SlotExecutor
from skyward_dask.extension.worker.slot_report import SlotReport
from skyward_dask.extension.worker.slot_usage import SlotUsage
from skyward_dask.extension.worker.staleness import Watch
from skyward_dask.extension.worker.streams import WorkerStreams
from skyward_dask.extension.worker.task_log import TaskLog
from skyward_dask.extension.worker.trimming import Trimming
from skyward_dask.extension.worker.values import Values
from skyward_dask.slots.aside import HELPERS

logger = logging.getLogger(__name__)

#: The node's name in `worker.plugins`, where the state machine finds it and calls `transition`.
NAME = "skyward-node"


class Node(WorkerPlugin):
    """Turns a worker into a node and back again; owns all other parts of the node."""

    name = NAME

    def __init__(self, worker: DaskWorker) -> None:
        self.worker = worker
        self._own_executor = worker.executors["default"]
        self._own_nthreads: int = worker.state.nthreads
        self._threads: DaskThreads
        if isinstance(self._own_executor, DaskThreads):
            self._threads = self._own_executor
        else:
            self._threads = DaskThreads(self._own_nthreads, thread_name_prefix="skyward-slot")
        helpers = self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="skyward-helper")
        counts = Counts.of(worker)
        self._log = TaskLog(worker)
        self._shared = SharedMemory(worker)
        self._values = Values(worker, self._shared, self._is_routing)
        self._trimming = Trimming(helpers)
        pools = self._pools = Pools(worker, counts, self._shared.pages, helpers, self._log)
        streams = self._streams = WorkerStreams.of(worker)
        self._executor = SlotExecutor(
            worker, pools, self._threads, self._values, counts, helpers, self._log, streams
        )
        usage = SlotUsage(worker, pools.pids, self._shared, helpers)
        self._report = SlotReport(worker, pools, counts, usage)
        # the first are undone when the last run has ended, the others with the plugin
        self._lasting_patches, self._patches = Patches(), Patches()
        usage.count_as_the_workers(self._lasting_patches)
        stacks = CallStacks(worker, ChainMap(self._executor.runs, streams.runs))
        self._lasting_patches.entry(worker.handlers, "call_stack", stacks.call_stack)
        self._plugin: WorkerPlugin | None = None
        self._disowned = False
        self._pace = Pace()
        self._changing = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    @staticmethod
    def of(worker: DaskWorker) -> Node | None:
        """The node of a worker, if it has one."""
        node = worker.plugins.get(NAME)
        return node if isinstance(node, Node) else None

    @property
    def config(self) -> Worker:
        """The configuration of its slots."""
        return self._pools.config

    # --- a configuration comes and goes --------------------------------------------------------

    async def adopt(self, plugin: WorkerPlugin, config: Worker) -> None:
        """Set up the slots of this configuration; running tasks finish in the slots where they started.

        Raises
        ------
        SlotStartFailed
            Children can't start; the node is as it was.
        InstallError
            The scheduler doesn't know the package; the node is as it was.
        """
        self._disowned = False
        async with self._changing:
            await introduce(self.worker.scheduler)
            if slots := await slots_told(self.worker):
                config = replace(config, concurrency=slots)
            self._log.watched.watch(await watchers_told(self.worker))  # tasks may have come already
            previous = await self._pools.begin(config)
            self._plugin = plugin
            private.resize_threads(self._threads, self._pools.size)
            if not self._is_routing():
                self._take_over()
            await self._set_slots(self._pools.size)
            self._pools.retire(previous)

    async def resize(self, slots: int) -> str:
        """Change the number of slots; if it is lowered, running tasks above it finish first."""
        async with self._changing:
            private.resize_threads(self._threads, slots)
            self._pools.resize(slots)
            await self._set_slots(slots)
        return "OK"

    async def refuse(self, plugin: WorkerPlugin) -> None:
        """Put things back after `adopt` has failed, or its configuration couldn't be loaded."""
        self._disowned = False
        plugins = self.worker.plugins
        for name in [name for name, found in plugins.items() if found is plugin]:
            if self._plugin is None:
                del plugins[name]
            else:
                plugins[name] = self._plugin
        if self._plugin is None:
            await self._end()

    def disown(self, plugin: WorkerPlugin) -> None:
        """The plugin is torn down: dismantle the node, unless another plugin adopts it at once."""
        if plugin is self._plugin and not is_closing(self.worker):
            self._disowned = True
            self._spawn(self._dismantle_if_disowned())

    async def _dismantle_if_disowned(self) -> None:
        if self._disowned:
            await self.dismantle()

    async def dismantle(self) -> None:
        """Give the worker its own executor back; running tasks finish in their slots."""
        self._disowned = False
        worker = self.worker
        async with self._changing:
            if worker.plugins.get(NAME) is not self:
                return  # somebody else was faster
            self._patches.undo()
            # under another name, it is still torn down if the worker closes before the last run has ended
            worker.plugins[f"{NAME}-{id(self)}"] = self
            self._values.open_all()
            private.resize_threads(self._threads, self._own_nthreads)
            await self._set_slots(self._own_nthreads)
            self._pools.retire(self._pools.current)
            self._spawn(self._leave())

    async def _leave(self) -> None:
        """Close the node when the last run has ended."""
        await self._pools.wait_retired()
        self.worker.plugins.pop(f"{NAME}-{id(self)}", None)
        await self._close()

    async def teardown(self, worker: DaskWorker) -> None:
        """The worker closes: end every child now."""
        self._patches.undo()  # `Worker.close` shuts its own executor down, if it is back in place
        self._streams.close()
        try:
            await self._end()
        except asyncio.CancelledError:
            private.give_up_closing(self.worker)
            raise

    async def _end(self) -> None:
        await self._pools.end()
        await asyncio.gather(*self._background)
        await self._close()

    async def _close(self) -> None:
        """Release everything else that the node owns; its pools have ended."""
        await self._trimming.close()
        self._lasting_patches.undo()
        self._log.close()
        self._helpers.shutdown()
        self._executor.close()
        if self._threads is not self._own_executor:
            self._threads.shutdown(wait=False)
        self._shared.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- what the node changes in its worker -------------------------------------------------------------

    def _is_routing(self) -> bool:
        return self.worker.plugins.get(NAME) is self

    def _take_over(self) -> None:
        """Route tasks from now on, including those that are already waiting."""
        worker, patches = self.worker, self._patches
        patches.entry(worker.plugins, NAME, self)
        private.before_execute(patches, worker, self._executor.prepare)
        for name in ("default", "thread", "process"):
            patches.entry(worker.executors, name, self._executor)
        patches.entry(worker.handlers, "skyward_resize", self.resize)
        patches.entry(worker.handlers, "get_data", self._values.get_data)
        self._report.begin(patches)
        self._log.watched.begin(patches)
        patches.callback(self._pace.restore, worker.batched_stream)
        collect_less(worker, patches)
        Watch(worker, self._pools.renew).begin(patches)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """A task, or its value, has changed its state; called by the state machine."""
        if finish in ("waiting", "ready"):
            return  # it hasn't begun yet
        if start == "memory":
            self._streams.dropped(key)
        if not self._is_routing():
            return  # dismantled, and waiting for its last run
        if start == "memory":
            self._trimming.has(self.worker.state.nbytes)
        if start == "memory" or finish in ("released", "forgotten"):
            self._values.forget(key)
        self._executor.transition(key, start, finish)

    async def _set_slots(self, slots: int) -> None:
        registered = private.is_registered(self.worker)
        if slots != self._own_nthreads and not registered:
            logger.info(
                "%d slots for tasks: skyward's concurrency overrides nthreads=%d",
                slots,
                self._own_nthreads,
            )
            self._follow_memory_limit(slots)
        self.worker.state.nthreads = slots
        if self._is_routing():
            self._pace.hasten(self.worker.batched_stream, slots * INTERVAL_PER_SLOT)
        if registered:
            await report_slots(self.worker, slots, self._is_routing())
            private.compute_more(self.worker)
        else:  # it will register with the right count
            introduce_node(self.worker)

    def _follow_memory_limit(self, slots: int) -> None:
        """Adjust a ``memory_limit="auto"`` that was computed from the worker's former `nthreads`."""
        automatic = private.automatic_memory_limit(slots)
        if automatic and self.worker.memory_manager.memory_limit == private.automatic_memory_limit(
            self._own_nthreads
        ):
            private.set_memory_limit(self.worker, automatic)
            if self.worker.nanny is not None:
                self._spawn(private.tell_nanny_memory_limit(self.worker, automatic))
