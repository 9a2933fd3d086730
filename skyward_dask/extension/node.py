"""A node: one dask-worker's slots, and how its tasks find them.

```
 state machine ── transition(key, …, "waiting") ──▶ Node.transition: wrap the spec (routing)
 Worker.execute ─▶ SlotThreadPoolExecutor thread ─▶ RoutedTask() ─▶ Node.call
                                                      ├─ here: the spec itself
                                                      └─ SlotPool.run ─▶ child
```

The plugin comes and goes; the node is the state. All of it lives on the worker's loop, but for `call` and
what it uses, which run in slot threads.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import dask
from dask._task_spec import GraphNode
from dask.base import get_annotations
from distributed import Reschedule
from distributed import Worker as DaskWorker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.worker_state_machine import TaskState

from skyward_dask.config import Worker, grace
from skyward_dask.errors import SlotCrashed, SlotStartFailed, TaskTimeout
from skyward_dask.extension import private
from skyward_dask.extension.child import run_task
from skyward_dask.extension.dask_errors import awaited, not_an_exception, shorten
from skyward_dask.extension.executor import SlotThreadPoolExecutor
from skyward_dask.extension.facade import Introduction
from skyward_dask.extension.introducing import introduce
from skyward_dask.extension.logs import TaskLog
from skyward_dask.extension.memory import SharedMemory
from skyward_dask.extension.pace import Pace
from skyward_dask.extension.probing import probe
from skyward_dask.extension.profiling import Profiling
from skyward_dask.extension.records import Levels
from skyward_dask.extension.requests import Requests
from skyward_dask.extension.routing import (
    Place,
    Reason,
    Route,
    RoutedTask,
    UnroutableTask,
    limits,
    route,
)
from skyward_dask.extension.running import TaskRun, current
from skyward_dask.extension.scheduler import introduce_node, report_slots, slots_told
from skyward_dask.extension.staleness import Watch
from skyward_dask.extension.streams import refuse_generator
from skyward_dask.extension.tally import Tally
from skyward_dask.extension.values import Values
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.forms import Form
from skyward_dask.slots.pool import PoolClosed, RunEnded, SlotPool
from skyward_dask.slots.runs import Request, Run

logger = logging.getLogger(__name__)

#: Under this name in `worker.plugins`, so that the state machine calls `transition`.
NAME = "skyward-node"
#: Seconds for which a measurement of the slots' memory is good: one costs some 0.1 ms a process, and the
#: worker asks ten times a second.
_MEASURED = 0.5


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
        self._executor = SlotThreadPoolExecutor(self._own_nthreads)
        self._log = TaskLog(worker)
        self._pool: SlotPool | None = None
        self._pools: set[SlotPool] = set()
        self._pool_lock = threading.Lock()
        self._runs: dict[Any, TaskRun] = {}
        self._shared = SharedMemory(worker)
        self._values = Values(worker, self._shared, self._is_routing)
        self._measured, self._slots_own = 0.0, 0
        self._forget_memory = private.count_memory(worker, self._slots_memory)
        self._tally = Tally.of(worker)
        self._plugin: WorkerPlugin | None = None
        self._watch: Watch | None = None
        self._profiling = Profiling(worker)
        self._pace = Pace()
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
            self._executor.resize(slots)
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
            # out of the way, but there to be ended if the worker closes before the last run has ended
            worker.plugins[f"{NAME}-{id(self)}"] = worker.plugins.pop(NAME)
            self._unwrap()
            self._pace.restore(worker.batched_stream)
            worker.executors["default"] = self._own_executor
            for name in ("thread", "process"):
                worker.executors.pop(name, None)
            await self._set_slots(self._own_nthreads)
            self._executor.retire()
            if self._pool is not None:
                self._retire(self._pool)
            self._spawn(self._leave())

    async def _leave(self) -> None:
        """Go when the last run has ended."""
        await asyncio.gather(*self._retiring)
        self._forget_memory()
        self._profiling.close()
        self.worker.plugins.pop(f"{NAME}-{id(self)}", None)
        self._log.close()
        self._shared.close()

    async def teardown(self, worker: DaskWorker) -> None:
        """The worker closes: end every child now."""
        if worker.executors["default"] is self._executor:
            # Worker.close shuts down the executors that it finds: let it find the one that it started with
            worker.executors["skyward-own"] = self._own_executor
        await self._end()

    async def _end(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(pool.end) for pool in self._pools))
        await asyncio.gather(*self._background)
        self._executor.retire()
        self._forget_memory()
        self._profiling.close()
        self._log.close()
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
        worker = self.worker
        worker.plugins[NAME] = self
        self._watch = self._watch or Watch(worker, self._renew)
        self._pace.hasten(worker.batched_stream)
        self._executor.resize(self._slots_of(self.config))
        for name in ("default", "thread", "process"):
            worker.executors[name] = self._executor
        worker.handlers["skyward_statistics"] = self.statistics
        worker.handlers["skyward_check"] = self.check
        worker.handlers["skyward_resize"] = self.resize
        worker.handlers["get_data"] = self._values.get_data
        for ts in worker.state.tasks.values():
            if ts.state in ("waiting", "ready", "constrained"):
                self._wrap(ts)

    def _renew(self) -> None:
        if self._pool is not None:
            self._pool.renew(self._introduction())

    def _unwrap(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for name in ("skyward_statistics", "skyward_check", "skyward_resize"):
            self.worker.handlers.pop(name, None)
        self.worker.handlers["get_data"] = self.worker.get_data
        self._values.open_all()
        for ts in self.worker.state.tasks.values():
            if ts.state in ("waiting", "ready", "constrained") and isinstance(ts.run_spec, RoutedTask):
                ts.run_spec = ts.run_spec.spec

    async def _set_slots(self, slots: int) -> None:
        registered = private.is_registered(self.worker)
        if slots != self._own_nthreads and not registered:
            logger.info(
                "%d slots for tasks: skyward's concurrency stands above nthreads=%d",
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

    async def _started_pool(self, config: Worker) -> SlotPool | None:
        if config.kind != "process":
            return None
        pool = self._new_pool(config, eager=True)
        try:
            await asyncio.to_thread(pool.wait_ready)
        except BaseException:
            self._pools.discard(pool)
            await asyncio.to_thread(pool.end)
            self._tally.leave(pool)
            raise
        return pool

    def _new_pool(self, config: Worker, eager: bool) -> SlotPool:
        pool = SlotPool(
            self._slots_of(config),
            env=config.env,
            pre_import=config.pre_import,
            initializer=config.initializer,
            health_check=config.health_check,
            max_tasks=config.max_tasks_per_child,
            grace=grace(),
            backend="skyward_dask.extension.child:start",
            backend_argument=self._introduction(),
            eager=eager,
            share_from=None,
            segments=self._shared.pages,
            on_output=self._log.write,
            on_text=self._log.console.write,
            on_event=self._log_event,
        )
        self._pools.add(pool)
        self._tally.enter(pool)
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

    def _retire(self, pool: SlotPool) -> None:
        """Close a pool when its last run has ended."""
        pool.shutdown(wait=False)
        task = self._spawn(self._await_retired(pool))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _await_retired(self, pool: SlotPool) -> None:
        await asyncio.to_thread(pool.shutdown)
        self._tally.leave(pool)
        self._pools.discard(pool)

    def _log_event(self, event: str, slot: int, pid: int) -> None:
        if not self._is_closing():
            self.worker.log_event("skyward", {"action": event, "slot": slot, "pid": pid})

    # --- routing -------------------------------------------------------------------------------------

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Wrap a task's spec when it begins to wait: every path that sets a spec passes there.

        Dask swallows what is raised here, and would run the task in a thread: so nothing is raised.
        """
        if not self._is_routing():
            return  # dismantled, and waiting for its last run
        if start == "memory" or finish in ("released", "forgotten"):
            self._values.forget(key)
        if finish == "waiting":
            self._wrap(self.worker.state.tasks[key])
        elif finish == "executing":
            self._begins(key)
        elif finish == "released" and start in ("executing", "long-running"):
            if run := self._runs.get(key):  # it goes on, though nobody wants it any more
                run.stop()
        elif finish == "long-running":
            self._tally.threads.secede(key)
        elif finish in ("memory", "error", "forgotten"):
            self._runs.pop(key, None)

    def _begins(self, key: Any) -> None:
        self._runs[key] = TaskRun(key)
        ts = self.worker.state.tasks[key]
        if isinstance(ts.run_spec, RoutedTask) and ts.run_spec.route.reason is Reason.OTHER_EXECUTOR:
            self._tally.count(ts.run_spec.route)  # its executor may call it in another process

    def _wrap(self, ts: TaskState) -> None:
        spec = ts.run_spec
        if spec is None or isinstance(spec, RoutedTask):
            return
        try:
            annotations = ts.annotations or {}
            found = route(
                spec,
                is_actor=ts.key in self.worker.state.actors,
                annotation=annotations.get("executor"),
                executor=self.config.kind,
            )
            ts.run_spec = RoutedTask(spec, found, limits(annotations, found), self.call)
        except Exception as error:  # the task's own caller sees it
            ts.run_spec = UnroutableTask(spec, error)

    def call(self, task: RoutedTask, data: Mapping[Any, Any]) -> Any:
        """Compute a task where it was routed; in a slot's thread, but for coroutines."""
        try:
            return self._call(task, data)
        except Exception as error:
            shorten(error)
            raise
        except BaseException as error:
            failure = not_an_exception(error, task.key)
        raise failure

    def _call(self, task: RoutedTask, data: Mapping[Any, Any]) -> Any:
        if task.route.place is Place.CHILD:
            return self._call_in_child(task, data)
        if task.route.reason is not Reason.OTHER_EXECUTOR:
            self._tally.count(task.route)
        current.set(self._runs.get(task.key))
        views = self._values.own_views(task, data, self.config.kind == "process")
        if task.route.place is not Place.THREAD:
            result = task.spec(views)
            if task.route.place is Place.LOOP:
                return awaited(result, task.key)
            return refuse_generator(result, task.key)
        with self._tally.threads.run(task.key):
            return refuse_generator(task.spec(views), task.key)

    def _call_in_child(self, task: RoutedTask, data: Mapping[Any, Any]) -> Any:
        task_run = self._runs.get(task.key) or TaskRun(task.key)
        requests = Requests(self.worker, task_run, partial(self._profiling.add, task.key))
        small, attached = self._values.attach(data)
        request = Request(
            key=str(task.key),
            function=run_task,
            args=(task.spec, small, task.key, get_annotations(), tuple(attached)),
            attached=tuple(attached.values()),
            serve=requests.serve,
            report=requests.report,
            again=requests.again,
            pieces=partial(_pieces, task.spec, data),
            timeout=task.limits.timeout or self.config.timeout,
            memory_limit=task.limits.memory_limit or self.config.memory_limit,
        )
        try:
            with self._profiling.away(task.key, task_run):
                form = self._carry_out(Run(request), task_run)
            result = self._values.take(task.key, form)
            requests.bind(result)
            return result
        except (SlotCrashed, SlotStartFailed, TaskTimeout) as error:
            error.worker = error.worker or self.worker.address  # of a task within the task: that one's
            raise
        except RunEnded:
            raise Reschedule from None  # nobody wants it any more, or its pool was ended with the worker
        finally:
            self._log.console.wait_written()
            requests.end()
            task_run.leave()
            shuffled = requests.shuffled and task.route.reason is Reason.PLAIN
            self._tally.count(Route(Place.CHILD, Reason.P2P if shuffled else task.route.reason))

    def _carry_out(self, run: Run, task_run: TaskRun) -> Form:
        while True:
            pool = self._present_pool()
            task_run.enter(pool, run)
            try:
                return pool.carry_out_to_form(run)
            except PoolClosed:
                if pool is self._pool:  # nothing came in its place: the node has ended
                    raise Reschedule from None

    def _present_pool(self) -> SlotPool:
        with self._pool_lock:
            if self._pool is None:  # a node of threads, and the first task that asks for a process
                self._pool = self._new_pool(self.config, eager=False)
            return self._pool

    # --- looking ---------------------------------------------------------------------------------------

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
        slots = self._tally.slots(self._pool) if self._pool is not None else []
        if self.config.kind == "thread":
            slots = self._tally.threads.snapshots(self.worker.state.nthreads) + slots
        return {
            "executor": self.config.kind,
            "concurrency": self.worker.state.nthreads,
            "slots": [asdict(slot) for slot in slots],
            "tasks": self._tally.tasks(),
        }


def _pieces(spec: GraphNode, data: Mapping[Any, Any]) -> Iterator[tuple[str, object]]:
    """A task's parts by the names that an error should call them by."""
    for key, value in data.items():
        yield f"the result of task {key!r}, an argument", value
    function = getattr(spec, "func", None)
    if function is not None:
        yield "the function", function
    for number, value in enumerate(getattr(spec, "args", ())):
        yield f"argument {number}", value
    for name, value in getattr(spec, "kwargs", {}).items():
        yield f"argument {name!r}", value
