"""A node: one dask-worker's slots, and how its tasks find them.

```
 Worker.execute ─▶ Node.execute: who is to run elsewhere gets plain values ─▶ Dask's own execute
                                   └─▶ SlotExecutor.submit ─▶ Node.run ─┬─ child:  ChildRun ─▶ Pool
                                                                        └─ thread: Dask's own threads
```

The plugin comes and goes; the node is the state. All of it lives on the worker's loop, but for what thread
slots do.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import dask
from dask._task_spec import GraphNode
from distributed import Worker as DaskWorker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.threadpoolexecutor import ThreadPoolExecutor as DaskThreads

from skyward_dask.config import Worker, grace
from skyward_dask.extension import private
from skyward_dask.extension.batching import INTERVAL
from skyward_dask.extension.child.worker_facade import Introduction
from skyward_dask.extension.dask_errors import called
from skyward_dask.extension.generators import refuse_generator
from skyward_dask.extension.log_records import Levels
from skyward_dask.extension.patches import Patches
from skyward_dask.extension.registration import introduce
from skyward_dask.extension.task_run import TaskRun, current
from skyward_dask.extension.tracebacks import shortened
from skyward_dask.extension.worker.child_run import ChildRun, Usage, failed
from skyward_dask.extension.worker.coroutine_task import LoopTask
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.probe import probe
from skyward_dask.extension.worker.profile import Profiling
from skyward_dask.extension.worker.requests import Requests
from skyward_dask.extension.worker.routing import Place, Reason, Route, limits, route
from skyward_dask.extension.worker.shared_memory import SharedMemory
from skyward_dask.extension.worker.slot_cpu import ProcessWithSlots
from skyward_dask.extension.worker.slot_executor import SlotExecutor
from skyward_dask.extension.worker.slot_reports import introduce_node, report_slots, slots_told
from skyward_dask.extension.worker.staleness import Watch
from skyward_dask.extension.worker.task_log import TaskLog
from skyward_dask.extension.worker.trimming import Trimming
from skyward_dask.extension.worker.values import Values
from skyward_dask.slots.aside import HELPERS
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.output import Sink
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.preparation import Preparation

logger = logging.getLogger(__name__)

#: Under this name in `worker.plugins`, so that the state machine calls `transition`.
NAME = "skyward-node"
#: Seconds for which a measurement of the slots' memory is good: one costs some 0.1 ms a process, and the
#: worker asks ten times a second.
_MEASURED = 0.5
#: Threads for what tasks ask of plugins: such a call may wait for others of its kind, in other slots.
_REQUESTS = 1000


class Node(WorkerPlugin):
    """The slots of one dask-worker.

    Parameters
    ----------
    worker : distributed.Worker
    """

    name = NAME

    def __init__(self, worker: DaskWorker) -> None:
        self.worker = worker
        self.config = Worker()
        self._own_executor = worker.executors["default"]
        self._own_nthreads: int = worker.state.nthreads
        self._threads: DaskThreads
        if isinstance(self._own_executor, DaskThreads):
            self._threads = self._own_executor
        else:
            self._threads = DaskThreads(self._own_nthreads, thread_name_prefix="skyward-slot")
        self._executor = SlotExecutor(self.run, self._threads)
        self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="skyward-helper")
        self._requested = DaskThreads(_REQUESTS, thread_name_prefix="skyward-request")
        self._log = TaskLog(worker)
        self._pool: Pool | None = None
        self._pools: set[Pool] = set()
        self._runs: dict[Any, TaskRun] = {}
        self._shared = SharedMemory(worker)
        self._values = Values(worker, self._shared, self._is_routing)
        self._measured, self._slots_own = 0.0, 0
        self._trimming = Trimming(self._helpers)
        self._counts = Counts.of(worker)
        self._plugin: WorkerPlugin | None = None
        self._profiling = Profiling(worker, lambda: self._runs)
        self._patches, self._lasting_patches = Patches(), Patches()
        self._lasting_patches.entry(worker.handlers, "call_stack", self._profiling.call_stack)
        private.count_memory(self._lasting_patches, worker, self._slots_memory)
        process = ProcessWithSlots(worker.monitor.proc, self._slots_pids)
        self._lasting_patches.attribute(worker.monitor, "proc", process)
        self._disowned = False
        self._changing = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    @staticmethod
    def of(worker: DaskWorker) -> Node | None:
        """The node of a worker, if it has one."""
        node = worker.plugins.get(NAME)
        return node if isinstance(node, Node) else None

    # --- a configuration comes and goes --------------------------------------------------------

    async def adopt(self, plugin: WorkerPlugin, config: Worker) -> None:
        """Have the slots of this configuration; running tasks end in the slots that they began in.

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
            pool = await self._started_pool(config)
            previous, self._pool = self._pool, pool
            self.config, self._plugin = config, plugin
            self._take_over()
            await self._set_slots(self._slots_of(config))
            if previous is not None:
                self._retire(previous)

    async def resize(self, slots: int) -> str:
        """Have so many slots; running tasks above a lowered number end first."""
        async with self._changing:
            self.config = replace(self.config, concurrency=slots)
            private.resize_threads(self._threads, slots)
            if self._pool is not None:
                self._pool.resize(slots)
            await self._set_slots(slots)
        return "OK"

    async def refuse(self, plugin: WorkerPlugin) -> None:
        """Put things back after `adopt` has failed."""
        plugins = self.worker.plugins
        for name in [name for name, found in plugins.items() if found is plugin]:
            if self._plugin is None:
                del plugins[name]
            else:
                plugins[name] = self._plugin
        if self._plugin is None:
            await self._end()

    def disown(self, plugin: WorkerPlugin) -> None:
        """The plugin is torn down: unless another one adopts the node at once, it is dismantled."""
        if plugin is self._plugin and not self._is_closing():
            self._disowned = True
            self._spawn(self._dismantle_if_disowned())

    async def _dismantle_if_disowned(self) -> None:
        if self._disowned:
            await self.dismantle()

    async def dismantle(self) -> None:
        """Give the worker its own executor back; running tasks end in their slots."""
        self._disowned = False
        worker = self.worker
        async with self._changing:
            if worker.plugins.get(NAME) is not self:
                return  # somebody else was faster
            self._patches.undo()
            # out of the way, but there to be ended if the worker closes before the last run has ended
            worker.plugins[f"{NAME}-{id(self)}"] = self
            self._values.open_all()
            private.resize_threads(self._threads, self._own_nthreads)
            await self._set_slots(self._own_nthreads)
            if self._pool is not None:
                self._retire(self._pool)
            self._spawn(self._leave())

    async def _leave(self) -> None:
        """Go when the last run has ended."""
        await asyncio.gather(*self._retiring)
        self.worker.plugins.pop(f"{NAME}-{id(self)}", None)
        await self._trimming.close()
        self._close()

    async def teardown(self, worker: DaskWorker) -> None:
        """The worker closes: end every child now."""
        self._patches.undo()  # `Worker.close` shuts its own executor down, if it finds it
        await self._end()

    async def _end(self) -> None:
        for pool in self._pools:
            pool.end()
        await asyncio.gather(*(pool.wait_closed() for pool in self._pools))
        await asyncio.gather(*self._background)
        await self._trimming.close()
        self._close()

    def _close(self) -> None:
        """Let go of what is the node's own; its pools have ended."""
        self._lasting_patches.undo()
        self._log.close()
        self._helpers.shutdown()
        self._requested.shutdown(wait=False)
        if self._threads is not self._own_executor:
            self._threads.shutdown(wait=False)
        self._shared.close()

    def _is_routing(self) -> bool:
        return self.worker.plugins.get(NAME) is self

    def _is_closing(self) -> bool:
        return self.worker.status.name in ("closing", "closed", "failed")

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # --- slots ----------------------------------------------------------------------------------------

    def _slots_of(self, config: Worker) -> int:
        return config.concurrency or self._own_nthreads

    def _take_over(self) -> None:
        """Route tasks from now on, those that wait included."""
        worker, patches = self.worker, self._patches
        private.resize_threads(self._threads, self._slots_of(self.config))
        if self._is_routing():
            return  # for the second time
        patches.entry(worker.plugins, NAME, self)
        patches.attribute(worker, "execute", self.execute)
        for name in ("default", "thread", "process"):
            patches.entry(worker.executors, name, self._executor)
        patches.entry(worker.handlers, "skyward_statistics", self.statistics)
        patches.entry(worker.handlers, "skyward_check", self.check)
        patches.entry(worker.handlers, "skyward_resize", self.resize)
        patches.entry(worker.handlers, "get_data", self._values.get_data)
        stream = worker.batched_stream
        patches.attribute(stream, "interval", min(INTERVAL, stream.interval))
        Watch(worker, self._renew).begin(patches)

    def _renew(self) -> None:
        if self._pool is not None:
            self._pool.renew(self._introduction())

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
        if registered:
            await report_slots(self.worker, slots, self._is_routing())
            private.compute_more(self.worker)
        else:  # it will register with the right count
            introduce_node(self.worker)

    def _follow_memory_limit(self, slots: int) -> None:
        """``memory_limit="auto"`` was computed from the nthreads that the worker no longer has."""
        automatic = private.automatic_memory_limit(slots)
        if automatic and self.worker.memory_manager.memory_limit == private.automatic_memory_limit(
            self._own_nthreads
        ):
            private.set_memory_limit(self.worker, automatic)
            if self.worker.nanny is not None:
                self._spawn(private.tell_nanny_memory_limit(self.worker, automatic))

    async def _started_pool(self, config: Worker) -> Pool | None:
        if config.kind != "process":
            return None
        pool = self._new_pool(config, eager=True)
        try:
            await pool.wait_ready()
        except BaseException:
            pool.end()
            await pool.wait_closed()
            self._pools.discard(pool)
            self._counts.leave(pool)
            raise
        return pool

    def _new_pool(self, config: Worker, eager: bool) -> Pool:
        preparation = Preparation(
            config.env,
            config.pre_import,
            config.initializer,
            "skyward_dask.extension.child.task:start",
            self._introduction(),
            config.health_check,
        )
        pool = Pool(
            self._slots_of(config),
            preparation,
            self._shared.pages,
            self._helpers,
            max_tasks=config.max_tasks_per_child,
            grace=grace(),
            eager=eager,
            sink=Sink(self._log.write, self._log.console.write),
            on_event=self._log_event,
        )
        self._pools.add(pool)
        self._counts.enter(pool)
        return pool

    def _introduction(self) -> bytes:
        worker = self.worker
        return pickle.dumps(
            Introduction(
                worker.contact_address or worker.address,
                worker.name,
                worker.id,
                worker.local_directory,
                worker.scheduler.address,
                worker.security,
                dask.config.config,
                Levels.now(),
            )
        )

    def _retire(self, pool: Pool) -> None:
        """Close a pool when its last run has ended."""
        pool.close()
        task = self._spawn(self._await_retired(pool))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _await_retired(self, pool: Pool) -> None:
        await pool.wait_closed()
        self._counts.leave(pool)
        self._pools.discard(pool)

    def _log_event(self, event: str, slot: int, pid: int) -> None:
        if not self._is_closing():
            self.worker.log_event("skyward", {"action": event, "slot": slot, "pid": pid})

    # --- tasks ---------------------------------------------------------------------------------------

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """What the state machine says of a task: its run begins, is given up, or is over."""
        if not self._is_routing():
            return  # dismantled, and waiting for its last run
        if start == "memory" or finish in ("released", "forgotten"):
            self._values.forget(key)
        if start == "memory":
            self._trimming.has(self.worker.state.nbytes)
        if finish == "executing":
            self._runs[key] = TaskRun(key)
        elif finish == "released" and start in ("executing", "long-running"):
            if run := self._runs.get(key):  # it goes on, though nobody wants it any more
                run.stop()
        elif finish == "long-running":
            self._counts.threads.secede(key)
        elif finish in ("memory", "error", "forgotten"):
            self._runs.pop(key, None)

    async def execute(self, key: Any, *, stimulus_id: str) -> Any:
        """In place of `Worker.execute`, which it calls: what no slot is to run needs plain values too."""
        ts = self.worker.state.tasks[key]
        if ts.run_spec is not None:
            found = self._route(ts.run_spec)
            if found.place is Place.LOOP:
                ts.run_spec = LoopTask.of(ts.run_spec)
            if found.place is Place.LOOP or found.reason is Reason.OTHER_EXECUTOR:
                self._counts.count(found)
                self._values.open(dependency.key for dependency in ts.dependencies)
                current.set(self._runs.get(key))
        return await DaskWorker.execute(self.worker, key, stimulus_id=stimulus_id)

    def _route(self, spec: GraphNode) -> Route:
        return route(
            spec,
            is_actor=spec.key in self.worker.state.actors,
            annotation=self._annotations(spec).get("executor"),
            executor=self.config.kind,
        )

    def _annotations(self, spec: GraphNode) -> Mapping[str, Any]:
        return self.worker.state.tasks[spec.key].annotations or {}

    def run(self, spec: GraphNode, data: Mapping[Any, Any], delay: float) -> Any:
        """Have a task run where it belongs; returns a future of Dask's message about it."""
        try:
            found = self._route(spec)
            own = limits(self._annotations(spec), found)
            if found.place is not Place.CHILD:
                call = partial(self._call_here, found, spec)
                return private.submit_task(self.worker, self._threads, call, spec.key, data, delay)
            run = self._child_run(found, spec, data, delay)
            run.start(self._present_pool(), own.or_of(self.config))
            return run.future
        except Exception as error:  # the task's own caller sees it
            return failed(error, delay)

    def _child_run(self, found: Route, spec: GraphNode, data: Mapping[Any, Any], delay: float) -> ChildRun:
        key = spec.key
        task_run = self._runs.get(key) or TaskRun(key)
        requests = Requests(self.worker, task_run, partial(self._profiling.add, key), self._requested)

        def count(usage: Usage) -> None:
            self._counts.prefixes.add(key, *usage)
            shuffled = requests.shuffled and found.reason is Reason.PLAIN
            self._counts.count(Route(Place.CHILD, Reason.P2P if shuffled else found.reason))

        address = self.worker.address
        return ChildRun(
            spec,
            data,
            delay,
            address,
            task_run,
            requests,
            self._values,
            self._log.console,
            self._helpers,
            count,
        )

    def _present_pool(self) -> Pool:
        if self._pool is None:  # a node of threads, and the first task that asks for a process
            self._pool = self._new_pool(self.config, eager=False)
        return self._pool

    def _call_here(self, found: Route, spec: GraphNode, data: Mapping[Any, Any]) -> Any:
        """Compute a task in a thread of the worker."""
        self._counts.count(found)
        current.set(self._runs.get(spec.key))
        views = self._values.own_views(found, data, self.config.kind == "process")
        slot = self._counts.threads.run(spec.key) if found.place is Place.THREAD else nullcontext()
        with shortened(), slot, self._counts.prefixes.thread(spec.key):
            return called(spec.key, lambda: refuse_generator(spec(views), spec.key))

    # --- looking ---------------------------------------------------------------------------------------

    def _slots_pids(self) -> list[int]:
        return [pid for pool in self._pools for pid in pool.pids()]

    def _slots_memory(self) -> int:
        """Bytes of the slots' own, as of half a second ago, and of what is shared with them."""
        if (now := time.monotonic()) - self._measured > _MEASURED:
            self._measured = now
            self._slots_own = sum(pool.own_memory() for pool in list(self._pools))
            self._shared.is_pressed()  # a paused worker asks for nothing, and has forms to forget
        return self._slots_own + self._shared.unseen()

    async def check(self, timeout: float) -> dict[str, Any]:
        """What the platform offers, and how the process slots are."""
        return {
            "executor": self.config.kind,
            "features": [feature.value for feature in Feature if available(feature)],
            "slots": await probe(self._pool, self.worker.state.nthreads, timeout) if self._pool else [],
        }

    def statistics(self) -> dict[str, Any]:
        """What there is to tell, in plain values."""
        slots = self._counts.slots(self._pool) if self._pool is not None else []
        if self.config.kind == "thread":
            slots = self._counts.threads.snapshots(self.worker.state.nthreads) + slots
        return {
            "executor": self.config.kind,
            "concurrency": self.worker.state.nthreads,
            "slots": [asdict(slot) for slot in slots],
            "tasks": self._counts.tasks(),
            "prefixes": self._counts.prefixes.values(),
        }
