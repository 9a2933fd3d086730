"""Every private name of distributed that the package uses, each with its reason and a canary test.

Those of clients and futures are in `private_clients`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from threading import Event, Thread, current_thread, get_ident
from types import FrameType
from typing import Any

from dask._task_spec import Alias as Alias
from dask._task_spec import DataNode as DataNode
from dask._task_spec import GraphNode as GraphNode
from dask._task_spec import Task as Task
from distributed import Scheduler, Status, Worker
from distributed.diagnostics.plugin import UploadFile, WorkerPlugin, _InstallWorkerPlugin
from distributed.metrics import time
from distributed.protocol.pickle import dumps
from distributed.spill import SpillBuffer
from distributed.threadpoolexecutor import ThreadPoolExecutor
from distributed.threadpoolexecutor import secede as leave_pool
from distributed.threadpoolexecutor import thread_state as executor_state
from distributed.utils import set_thread_state
from distributed.worker import (  # type: ignore[attr-defined]
    _run_actor,
    _run_task,
    _run_task_simple,
    _worker_cvar,
    thread_state,
)
from distributed.worker_memory import parse_memory_limit
from distributed.worker_state_machine import SecedeEvent, UnpauseEvent

from skyward_dask.extension.patches import Patches

#: What `get_worker()` reads: a child puts its façade there.
worker_context: ContextVar[Any] = _worker_cvar

#: What Dask knows about the task that a thread runs: its key.
task_of_thread: Any = thread_state

#: What `Worker.execute` submits to an executor that isn't a thread pool, with a spec, its data and a delay.
run_task_simple = _run_task_simple

#: Plugins of a worker that change its modules, behind `PipInstall`, `CondaInstall` and `Client.upload_file`.
module_plugins = (_InstallWorkerPlugin, UploadFile)


def pending_plugins(worker: Worker) -> tuple[WorkerPlugin, ...]:
    """The plugins that are set up right before the worker registers."""
    return tuple(worker._pending_plugins)


def add_pending_plugin(worker: Worker, plugin: WorkerPlugin) -> None:
    """Have the plugin set up right before the worker registers: if that fails, the worker exits.

    `_pending_plugins` is replaced: with ``gen_cluster`` it is a list that all workers share.
    """
    worker._pending_plugins = (*worker._pending_plugins, plugin)


def is_registered(worker: Worker) -> bool:
    """Whether the worker has registered with the scheduler, or can no longer be kept from doing so."""
    return hasattr(worker.state, "address")


def is_registering(worker: Worker) -> bool:
    """Whether the worker has registered and is setting up the plugins that the scheduler told it of."""
    return worker.status == Status.running and not worker.periodic_callbacks["heartbeat"].is_running()


def close_once_started(
    worker: Worker, reason: str, before: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Close a worker when it has registered, or failed to; `before` is awaited first.

    Of a worker that closes while it registers, Dask goes on registering: the scheduler keeps it, and its
    connection stays open, with or without heartbeats.
    """

    async def close() -> None:
        async with worker._startup_lock:
            pass
        if before is not None:
            await before()
        await worker.close(reason=reason)

    worker.loop.add_callback(close)


def give_up_closing(worker: Worker) -> None:
    """Let nobody wait any longer for the end of a worker whose `close` was cancelled.

    A signal cancels all tasks of the loop of a worker without a nanny; if the worker is closing already,
    `Worker.handle_scheduler` would wait for the end of `close` for ever, and the process with it.
    """
    worker._event_finished.set()


def before_execute(patches: Patches, worker: Worker, hook: Callable[[Any], None]) -> None:
    """Have a hook called with a task's key, in the task's own context, before `Worker.execute` begins.

    Undoing it removes this hook, and nobody else's: of several layers of wrappers, those below the topmost
    one would stay.
    """
    if not isinstance(execute := vars(worker).get("execute"), _Execute):
        execute = worker.execute = _Execute(worker)  # type: ignore[method-assign]
    execute.hooks.append(hook)
    patches.callback(execute.remove, hook)


class _Execute:
    """Stands in for a worker's `execute`."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._execute = worker, worker.execute
        self.hooks: list[Callable[[Any], None]] = []

    async def __call__(self, key: Any, *, stimulus_id: str) -> Any:
        for hook in self.hooks:
            hook(key)
        return await self._execute(key, stimulus_id=stimulus_id)

    def remove(self, hook: Callable[[Any], None]) -> None:
        self.hooks.remove(hook)
        if not self.hooks and vars(self._worker).get("execute") is self:
            del self._worker.execute


def compute_more(worker: Worker) -> None:
    """Have the state machine start tasks: it doesn't notice by itself that it has more slots."""
    if worker.state.running:
        worker.handle_stimulus(UnpauseEvent(stimulus_id="skyward-slots"))


def log_handler(worker: Worker) -> logging.Handler:
    """The handler behind ``client.get_worker_logs()``."""
    handler: logging.Handler = worker._deque_handler
    return handler


def automatic_memory_limit(nthreads: int) -> int | None:
    """What ``memory_limit="auto"`` means for this number of threads, in bytes."""
    limit: int | None = parse_memory_limit("auto", nthreads, logger=logging.getLogger(__name__))
    return limit


def set_memory_limit(worker: Worker, limit: int) -> None:
    """Give a worker another limit, and its spill buffer the target that follows from it."""
    manager = worker.memory_manager
    data = manager.data
    if isinstance(data, SpillBuffer) and manager.memory_limit:
        data.fast.n = data.fast.n * limit / manager.memory_limit
    manager.memory_limit = limit


async def tell_nanny_memory_limit(worker: Worker, limit: int) -> None:
    """Give a worker's nanny the limit beyond which it ends the worker."""
    await run_in_nanny(worker, _set_nanny_memory_limit, limit)


async def run_in_nanny(worker: Worker, function: Callable[..., object], *args: object) -> None:
    """Call a function in the process of a worker's nanny, on its loop, once the nanny has started."""
    nanny: Any = worker.nanny  # its address, whatever its annotation says
    # the nanny listens while it waits for the worker to register; if it doesn't answer, the worker goes on
    with suppress(OSError):
        await worker.rpc(nanny).run(function=dumps(function), args=dumps(args))


def _set_nanny_memory_limit(limit: int, dask_worker: Any) -> None:
    dask_worker.memory_manager.memory_limit = limit


def submit_task(
    worker: Worker, threads: ThreadPoolExecutor, call: Callable[..., Any], key: Any, data: Any, delay: float
) -> Any:
    """Have one of Dask's threads run a task, as `Worker.execute` does; returns the future of its message."""
    context = copy_context()
    return threads.submit(
        context.run, _run_task, call, data, worker.execution_state, key,
        worker.active_threads, worker.active_threads_lock, delay,
    )  # fmt: skip


@contextmanager
def task_thread(worker: Worker, key: Any) -> Iterator[None]:
    """In the block, Dask's plugins take this thread for the task's own."""
    token = _worker_cvar.set(worker)
    with set_thread_state(start_time=time(), execution_state=worker.execution_state, key=key):
        try:
            yield
        finally:
            _worker_cvar.reset(token)


@contextmanager
def stream_thread(worker: Worker, key: Any) -> Iterator[None]:
    """In the block, Dask takes this thread for a task's that is no task of its state machine.

    Otherwise, a `secede` in a generator would change the state of its task, which is finished.
    """
    with task_thread(worker, f"{key} (stream)"):
        with worker.active_threads_lock:
            worker.active_threads[get_ident()] = key
        try:
            yield
        finally:
            with worker.active_threads_lock:
                del worker.active_threads[get_ident()]


def is_of(pool: ThreadPoolExecutor, thread: Thread | None) -> bool:
    """Whether a thread is one of the pool; one that has seceded is not."""
    return thread in pool._threads


@contextmanager
def outside_pool() -> Iterator[bool]:
    """In the block, this thread isn't one of its pool, which may start another; whether it was before."""
    pool = getattr(executor_state, "executor", None)
    if pool is None or not is_of(pool, current_thread()):
        yield False
        return
    leave_pool()
    try:
        yield True
    finally:
        _rejoin(pool)


def _rejoin(pool: ThreadPoolExecutor) -> None:
    """As Dask's own `rejoin`, which would wait for ever if the pool was shut down meanwhile."""
    joined = Event()
    with pool._rejoin_lock:
        pool._rejoin_list.append((current_thread(), joined))
    with suppress(RuntimeError):  # it is shut down
        pool.submit(lambda: None)
    while not joined.wait(1) and not pool._shutdown:
        pass
    executor_state.proceed = True


def resize_threads(threads: ThreadPoolExecutor, count: int) -> None:
    """Set the maximum number of threads; surplus ones stay, and wait."""
    threads._max_workers = count


def set_executor(executor: object) -> None:
    """Have `distributed.secede` and `distributed.rejoin` act on this object, in this thread."""
    executor_state.executor = executor


def secede(worker: Worker, key: Any, begun: float | None) -> None:
    """Tell the state machine that a task continues outside its slot, as Dask's own secede does.

    Without the time at which it has begun, the scheduler learns nothing about how long such tasks take.
    """
    now = time()
    duration: Any = None if begun is None else now - begun
    worker.handle_stimulus(
        SecedeEvent(key=key, compute_duration=duration, stimulus_id=f"worker-secede-{now}")
    )


def count_memory(patches: Patches, worker: Worker, slots: Callable[[], int]) -> None:
    """Add the memory of a worker's slots to the figure that it reports, and by which it spills and pauses."""
    own = worker.monitor.get_process_memory
    patches.attribute(worker.monitor, "get_process_memory", lambda: own() + slots())


def place_actor(worker: Worker, key: str, actor: object) -> None:
    """Make an object an actor of a worker, without a task that builds it.

    A scheduler that has released the key meanwhile has the worker drop it.
    """
    worker.state.actors[key] = actor  # before the value arrives, so that it is taken for an actor's
    worker.update_data({key: actor})
    worker.batched_send({"op": "add-keys", "keys": [key], "stimulus_id": f"place-actor-{key}"})


def weigh_actors(worker: Worker, nbytes: Mapping[str, int]) -> None:
    """Tell a worker how many bytes its actors have: it has looked at them once, when they were new."""
    for key, size in nbytes.items():
        task = worker.state.tasks.get(key)
        if task is not None and task.nbytes is not None and key in worker.state.actors:
            worker.state.nbytes += size - task.nbytes
            task.nbytes = size


def spare_actors(scheduler: Scheduler) -> None:
    """Have ``client.rebalance()`` move no actors: it moves their proxies, and ends what they stand for."""
    find = scheduler._rebalance_find_msgs

    def find_others(*args: Any, **kwargs: Any) -> list[Any]:
        return [found for found in find(*args, **kwargs) if not found[2].actor]

    scheduler._rebalance_find_msgs = find_others  # type: ignore[method-assign]


def know_actor(scheduler: Scheduler, key: str, worker: str, client: str) -> None:
    """Tell the scheduler about an actor that a worker is about to have, and about a client that wants it."""
    scheduler.update_data(who_has={key: [worker]}, nbytes={key: 0}, client=client)
    task = scheduler.tasks[key]
    task.actor = True
    scheduler.workers[worker].actors.add(task)


def actor_in_this_thread(worker: Worker) -> Any:
    """The key of the actor whose method runs in this thread; None if none does."""
    if not getattr(thread_state, "actor", False):
        return None
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not _run_actor.__code__:
        frame = frame.f_back
    actor = getattr(frame.f_locals["func"], "__self__", None) if frame is not None else None
    return next((key for key, found in worker.state.actors.items() if found is actor), None)


def key_of_this_coroutine(keys: Iterable[Any]) -> Any:
    """The one of a worker's keys that this coroutine computes, by its asyncio task's name; None if none."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None
    name = "" if task is None else task.get_name()
    return next((key for key in keys if name == f"execute({key!r})"), None)


def has_workers() -> bool:
    """Whether workers live in this process."""
    return bool(Worker._instances)
