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
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import dask
from dask._task_spec import GraphNode
from distributed import Reschedule
from distributed import Worker as DaskWorker
from distributed.comm.core import Comm
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.worker_state_machine import TaskState

from skyward_dask.config import Worker
from skyward_dask.errors import InstallError, SkywardError
from skyward_dask.extension import private
from skyward_dask.extension.child import Introduction, run_task
from skyward_dask.extension.executor import SlotThreadPoolExecutor
from skyward_dask.extension.logs import TaskLog
from skyward_dask.extension.memory import SharedMemory
from skyward_dask.extension.parcel import Parcel
from skyward_dask.extension.routing import Place, Reason, Route, RoutedTask, UnroutableTask, route
from skyward_dask.extension.scheduler import introduce, report_slots
from skyward_dask.extension.shelf import may_have_buffers
from skyward_dask.extension.streams import refuse_generator
from skyward_dask.slots.forms import Form
from skyward_dask.slots.pickling import unpicklable
from skyward_dask.slots.pool import PoolClosed, SlotPool, SlotSnapshot
from skyward_dask.slots.process import Request

logger = logging.getLogger(__name__)

#: Under this name in `worker.plugins`, so that the state machine calls `transition`.
NAME = "skyward-node"
#: What is counted since the worker started, over all pools that a slot's index has been in.
_COUNTED = ("tasks_done", "crashes")
#: Tasks that hand a value on as it is.
_PASSING = frozenset({Reason.ALIAS, Reason.DATA})
#: What a task in a child may ask of its worker's P2P plugin.
_SHUFFLE_CALLS = frozenset({"add_partition", "barrier", "get_output_partition"})


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
        self.tasks: Counter[Route] = Counter()
        self._own_executor = worker.executors["default"]
        self._own_nthreads: int = worker.state.nthreads
        self._executor = SlotThreadPoolExecutor(self._own_nthreads)
        self._log = TaskLog(worker)
        self._memory = SharedMemory(worker)
        self._parcels: set[Any] = set()
        self._pool: SlotPool | None = None
        self._pools: set[SlotPool] = set()
        self._pool_lock = threading.Lock()
        self._past: Counter[tuple[int, str]] = Counter()
        self._plugin: WorkerPlugin | None = None
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
            pool = await self._started_pool(config)
            previous, self._pool = self._pool, pool
            self.config, self._plugin = config, plugin
            self._take_over()
            await self._set_slots(self._slots_of(config))
            if previous is not None:
                self._retire(previous)

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
        self.worker.plugins.pop(f"{NAME}-{id(self)}", None)
        self._log.close()
        self._memory.close()

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
        self._log.close()
        self._memory.close()

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
        self._executor.resize(self._slots_of(self.config))
        for name in ("default", "thread", "process"):
            worker.executors[name] = self._executor
        worker.handlers["skyward_statistics"] = self.statistics
        worker.handlers["get_data"] = self.get_data
        for ts in worker.state.tasks.values():
            if ts.state in ("waiting", "ready", "constrained"):
                self._wrap(ts)

    def _unwrap(self) -> None:
        self.worker.handlers.pop("skyward_statistics", None)
        self.worker.handlers["get_data"] = self.worker.get_data
        self._open_parcels(set(self._parcels))
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
        if registered:  # else it will register with the right count
            await report_slots(self.worker, slots)
            private.compute_more(self.worker)

    def _follow_memory_limit(self, slots: int) -> None:
        """``memory_limit="auto"`` was computed from the nthreads that the worker no longer has."""
        automatic = private.automatic_memory_limit(slots)
        if automatic and self.worker.memory_manager.memory_limit == private.automatic_memory_limit(
            self._own_nthreads
        ):
            private.set_memory_limit(self.worker, automatic)

    async def _started_pool(self, config: Worker) -> SlotPool | None:
        if config.kind != "process":
            return None
        pool = self._new_pool(config, eager=True)
        try:
            await asyncio.to_thread(pool.wait_ready)
        except BaseException:
            self._pools.discard(pool)
            await asyncio.to_thread(pool.end)
            raise
        return pool

    def _new_pool(self, config: Worker, eager: bool) -> SlotPool:
        worker = self.worker
        introduction = Introduction(
            worker.contact_address or worker.address,
            worker.name,
            worker.id,
            worker.local_directory,
            worker.scheduler.address,
            dask.config.config,
        )
        pool = SlotPool(
            self._slots_of(config),
            env=config.env,
            pre_import=config.pre_import,
            initializer=config.initializer,
            backend="skyward_dask.extension.child:start",
            backend_argument=pickle.dumps(introduction),
            eager=eager,
            share_from=None,
            segments=self._memory.pages,
            on_output=self._log.write,
            on_event=self._log_event,
        )
        self._pools.add(pool)
        return pool

    def _retire(self, pool: SlotPool) -> None:
        """Close a pool when its last run has ended."""
        pool.shutdown(wait=False)
        task = self._spawn(self._await_retired(pool))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _await_retired(self, pool: SlotPool) -> None:
        await asyncio.to_thread(pool.shutdown)
        for slot in pool.snapshots():
            for name in _COUNTED:
                self._past[slot.index, name] += getattr(slot, name)
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
            self._memory.shelf.forget(key)
            self._parcels.discard(key)
        if finish == "waiting":
            self._wrap(self.worker.state.tasks[key])
        elif finish == "executing":
            ts = self.worker.state.tasks[key]
            if isinstance(ts.run_spec, RoutedTask) and ts.run_spec.route.reason is Reason.OTHER_EXECUTOR:
                self.tasks[ts.run_spec.route] += 1  # its executor may call it in another process

    def _wrap(self, ts: TaskState) -> None:
        spec = ts.run_spec
        if spec is None or isinstance(spec, RoutedTask):
            return
        try:
            found = route(
                spec,
                is_actor=ts.key in self.worker.state.actors,
                annotation=(ts.annotations or {}).get("executor"),
                executor=self.config.kind,
            )
            ts.run_spec = RoutedTask(spec, found, self.call)
        except Exception as error:  # the task's own caller sees it
            ts.run_spec = UnroutableTask(spec, error)

    def call(self, task: RoutedTask, data: Mapping[Any, Any]) -> Any:
        """Compute a task where it was routed; in a slot's thread, but for coroutines."""
        if task.route.place is Place.CHILD:
            return self._call_in_child(task, data)
        if task.route.reason is not Reason.OTHER_EXECUTOR:
            self.tasks[task.route] += 1
        result = task.spec(self._own_views(task, data))
        return result if task.route.place is Place.LOOP else refuse_generator(result, task.key)

    def _call_in_child(self, task: RoutedTask, data: Mapping[Any, Any]) -> Any:
        asked: set[str] = set()
        data, attached = self._attached(data)
        request = Request(
            key=str(task.key),
            function=run_task,
            args=(task.spec, data, task.key, tuple(attached)),
            attached=tuple(attached.values()),
            serve=partial(self._serve, asked),
            pieces=partial(_pieces, task.spec, data),
        )
        try:
            form = self._run(request)
        except CancelledError:
            raise Reschedule from None  # its pool was ended, with the worker
        finally:
            reason = Reason.P2P if asked and task.route.reason is Reason.PLAIN else task.route.reason
            self.tasks[Route(Place.CHILD, reason)] += 1
        value = form.load()
        if isinstance(value, Parcel):
            return self._kept_closed(task.key, value)
        if form.is_shared:
            self._memory.shelf.keep(task.key, value, form)
        return value

    def _kept_closed(self, key: Any, parcel: Parcel) -> Any:
        if not self._is_routing():
            return parcel.open()  # whoever takes the worker over doesn't know of parcels
        self._parcels.add(key)
        return parcel

    def _is_routing(self) -> bool:
        return self.worker.plugins.get(NAME) is self

    def _attached(self, data: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Form]]:
        """A task's dependencies: small values, and forms of those that may be shared."""
        small, attached = {}, {}
        for key, value in data.items():
            if self._memory.is_large(key):
                attached[key] = self._form(key, value)
            else:
                small[key] = value
        return small, attached

    def _form(self, key: Any, value: object) -> Form:
        try:
            return self._memory.shelf.form(key, value)
        except SkywardError:
            raise
        except Exception as error:
            raise unpicklable([(f"the result of task {key!r}, an argument", value)], error) from error

    def _own_views(self, task: RoutedTask, data: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """The dependencies of a task that doesn't leave the worker: what slots share, it may write to."""
        if task.route.reason in _PASSING:
            return data
        # on the loop there is no time to copy anything
        shares = self.config.kind == "process" and task.route.place is Place.THREAD
        return {key: self._own_view(key, value, shares) for key, value in data.items()}

    def _own_view(self, key: Any, value: Any, shares: bool) -> Any:
        if isinstance(value, Parcel):
            return value.open()
        shelf = self._memory.shelf
        form = shelf.kept(key, value)
        if form is None and shares and self._memory.is_large(key) and may_have_buffers(value):
            with suppress(Exception):  # it can't be pickled: then no other slot computes with it
                form = shelf.form(key, value)
        return value if form is None or len(form.parts) == 1 else self._memory.own_view(form)

    async def get_data(self, comm: Comm, keys: Collection[Any], **options: Any) -> Any:
        """As the worker's own; who asks from this process gets the object itself, and so no parcel."""
        if comm.peer_address.startswith("inproc"):
            self._open_parcels(self._parcels.intersection(keys))
        return await self.worker.get_data(comm, keys, **options)

    def _open_parcels(self, keys: Iterable[Any]) -> None:
        data = self.worker.data
        for key in keys:
            if isinstance(value := data.get(key), Parcel):
                data[key] = value.open()
        self._parcels.difference_update(keys)

    def _run(self, request: Request) -> Form:
        while True:
            pool = self._present_pool()
            try:
                return pool.run_to_form(request)
            except PoolClosed:
                if pool is self._pool:  # nothing came in its place: the node has ended
                    raise Reschedule from None

    def _present_pool(self) -> SlotPool:
        with self._pool_lock:
            if self._pool is None:  # a node of threads, and the first task that asks for a process
                self._pool = self._new_pool(self.config, eager=False)
            return self._pool

    def _serve(self, asked: set[str], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        owner, _, call = name.partition(".")
        if owner != "shuffle" or call not in _SHUFFLE_CALLS:
            raise InstallError(f"a task asked its worker for {name!r}, which it doesn't offer")
        asked.add(owner)
        function: Callable[..., Any] = getattr(self.worker.plugins["shuffle"], call)
        return function(*args, **kwargs)

    # --- looking ---------------------------------------------------------------------------------------

    def _with_past(self, slot: SlotSnapshot) -> SlotSnapshot:
        """The slot with what was counted in the pools before this one."""
        past = {name: getattr(slot, name) + self._past[slot.index, name] for name in _COUNTED}
        return replace(slot, **past)

    def statistics(self) -> dict[str, Any]:
        """What there is to tell, in plain values."""
        slots = self._pool.snapshots() if self._pool is not None else ()
        return {
            "executor": self.config.kind,
            "concurrency": self.worker.state.nthreads,
            "slots": [asdict(self._with_past(slot)) for slot in slots],
            "tasks": [(r.place.value, r.reason.value, n) for r, n in self.tasks.items()],
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
