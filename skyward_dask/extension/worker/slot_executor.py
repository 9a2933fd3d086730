"""The executor to which `Worker.execute` hands tasks: its `submit` decides where a task runs.

```
 Worker.execute ─▶ SlotExecutor.submit ─ route ─┬─ child ──▶ ChildRun ─▶ Pool        all on the worker's loop
                                                └─ thread ─▶ Dask's own threads, by `_run_task`
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import nullcontext
from contextvars import Context, copy_context
from copy import copy
from functools import partial
from typing import Any

from distributed import Worker as DaskWorker
from distributed.threadpoolexecutor import ThreadPoolExecutor as DaskThreads
from distributed.utils import sync

from skyward_dask.extension import private
from skyward_dask.extension.child.streams import GENERATORS
from skyward_dask.extension.dask_errors import called
from skyward_dask.extension.private import GraphNode
from skyward_dask.extension.streams.hosts import Hosted
from skyward_dask.extension.streams.stream import Stream
from skyward_dask.extension.task_run import TaskRun, current
from skyward_dask.extension.tracebacks import shortened
from skyward_dask.extension.unrun import refuse_unrun
from skyward_dask.extension.worker.child_run import ChildRun, Facilities, failed
from skyward_dask.extension.worker.child_stream import ChildProducer
from skyward_dask.extension.worker.coroutine_task import LoopTask
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.pools import Pools
from skyward_dask.extension.worker.routing import Place, Reason, Route, arguments, limits, route, yields
from skyward_dask.extension.worker.streams import WorkerStreams
from skyward_dask.extension.worker.task_log import TaskLog
from skyward_dask.extension.worker.values import Values
from skyward_dask.settings import grace
from skyward_dask.slots.aside import Tasks

#: Maximum number of threads for tasks' calls to plugins. Such a call may wait for one from another slot,
#: which needs a thread too. Arbitrary: far more than a node has slots.
_REQUESTS = 1000


class SlotExecutor(Executor):
    """The executor of a node's tasks, and the runs that are under way. Used on the worker's loop only.

    `Worker.execute` calls ``submit(_run_task_simple, spec, data, scheduler_delay)`` on its loop, in the
    task's own context, for any executor whose class isn't named like a thread pool, and waits for the future
    that this returns, of `asyncio` or `concurrent.futures`. Other callers (benchmarks of disk and memory)
    submit plain calls.

    Parameters
    ----------
    worker : distributed.Worker
    pools : Pools
        Run tasks in children.
    threads : distributed.threadpoolexecutor.ThreadPoolExecutor
        Runs tasks in threads, and plain calls.
    values : Values
    counts : Counts
    helpers : concurrent.futures.Executor
    log : TaskLog
        Takes what tasks print.
    streams : WorkerStreams

    Attributes
    ----------
    runs : dict of TaskRun
        By key; a run whose result nobody wants any more stays here until it is over.
    """

    def __init__(
        self,
        worker: DaskWorker,
        pools: Pools,
        threads: DaskThreads,
        values: Values,
        counts: Counts,
        helpers: Executor,
        log: TaskLog,
        streams: WorkerStreams,
    ) -> None:
        self._worker, self._pools, self._threads = worker, pools, threads
        self._values, self._counts = values, counts
        self._requested = DaskThreads(_REQUESTS, thread_name_prefix="skyward-request")
        self._facilities = Facilities(worker, values, counts, log.console, helpers, self._requested, streams)
        self._log, self._streams = log, streams
        self._tasks = Tasks()
        self.runs: dict[Any, TaskRun] = {}

    def transition(self, key: Any, start: str, finish: str) -> None:
        """A task's run begins, is given up, or is over; called with the state machine's transitions."""
        if finish == "executing":
            self.runs[key] = self._new_run(key)
        elif finish == "released" and start in ("executing", "long-running"):
            if run := self.runs.get(key):  # it still runs, though nobody wants its result any more
                run.stop()
        elif finish == "long-running":
            self._counts.threads.secede(key)
        elif finish in ("memory", "error", "forgotten"):
            self.runs.pop(key, None)

    def prepare(self, key: Any) -> None:
        """Called in a task's context before it is executed: a task that no slot runs needs plain values."""
        ts = self._worker.state.tasks[key]
        if ts.run_spec is None:
            return
        if ts.run_spec.key != key:  # some graphs have such specs, as nothing in Dask looks at their keys
            ts.run_spec = renamed = copy(ts.run_spec)
            renamed.key = key
        run = self._run_of(key)
        found = self._route(run, ts.run_spec, ts.annotations or {})
        if found.place is Place.LOOP:
            ts.run_spec = LoopTask.of(ts.run_spec, partial(self._stream_or_value, key))
        if found.place is Place.LOOP or found.reason is Reason.OTHER_EXECUTOR:
            self._counts.count(found)
            self._values.open(dependency.key for dependency in ts.dependencies)
            current.set(self.runs.get(key))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a task where it belongs, or a plain call in a thread."""
        if fn is not private.run_task_simple:
            return self._threads.submit(fn, *args, **kwargs)
        spec, data, delay = args
        try:
            with shortened():
                return called(spec.key, partial(self._run, spec, data, delay))
        except Exception as error:  # whoever waits for the task sees it
            return failed(error, delay)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the node ends its slots itself, and `Worker.close` calls this once for each name."""

    def close(self) -> None:
        """End the threads for requests; the last run is over."""
        self._requested.shutdown(wait=False)

    # --- where a task runs ------------------------------------------------------------------------------

    def _run_of(self, key: Any) -> TaskRun:
        """The run of a task; a new one for a task that was executing when the node took over."""
        return self.runs.get(key) or self._new_run(key)

    def _new_run(self, key: Any) -> TaskRun:
        return TaskRun(key, hear=self._log.watched.hear)

    def _route(self, run: TaskRun, spec: GraphNode, annotations: Mapping[str, Any]) -> Route:
        if run.route is None:
            run.route = route(
                spec,
                is_actor=run.key in self._worker.state.actors,
                annotation=annotations.get("executor"),
                executor=self._pools.config.kind,
            )
        return run.route

    def _run(self, spec: GraphNode, data: Mapping[Any, Any], delay: float) -> Any:
        annotations = self._worker.state.tasks[spec.key].annotations or {}
        run = self._run_of(spec.key)
        found = self._route(run, spec, annotations)
        limited = limits(annotations, found, self._pools.config)
        if found.place is not Place.CHILD:
            call = partial(self._call_here, found, spec)
            return private.submit_task(self._worker, self._threads, call, spec.key, data, delay)
        child_run = ChildRun(self._facilities, run, found, spec, data, delay, self._open)

        def start() -> None:
            child_run.start(self._pools.current or self._pools.begin_late(), limited)

        if yields(spec):
            self._open(child_run, start)  # its generator begins with its reader, and needs no child before
        else:
            start()
        return child_run.future

    def _call_here(self, found: Route, spec: GraphNode, data: Mapping[Any, Any]) -> Any:
        """Compute a task in a thread of the worker."""
        self._counts.count(found)
        run = self._run_of(spec.key)
        current.set(run)
        in_processes = self._pools.config.kind == "process"

        def compute() -> Any:
            with run.reading():
                value = spec(self._values.own_views(found, spec.key, data, in_processes))
                run.is_stream = isinstance(value, GENERATORS)
            if run.is_stream:
                read = (*data.values(), *arguments(spec))
                return sync(self._worker.loop, self._stream_of, run, value, read, copy_context())
            return refuse_unrun(value, spec.key)

        slot = self._counts.threads.run(spec.key) if found.place is Place.THREAD else nullcontext()
        with shortened(), slot, self._counts.prefixes.thread(spec.key):
            return called(spec.key, compute)

    # --- tasks that yield -------------------------------------------------------------------------------

    def _open(self, run: ChildRun, start: Callable[[], None] | None = None) -> None:
        """The task of a process slot is a stream; `start` begins its run, if that isn't under way."""

        def make(hosted: Hosted) -> ChildProducer:
            producer = ChildProducer(hosted, start, grace())
            run.become(producer)
            return producer

        run.task_run.is_stream = True
        stream = self._streams.opened(run.task_run, make)
        self._tasks.spawn(self._finish(run, stream))

    async def _finish(self, run: ChildRun, stream: Stream[Any]) -> None:
        """End the task with its stream, once what that will read is held."""
        await self._streams.hold((*run.data.values(), *arguments(run.spec)), run.task_run)
        run.finish_with(stream)

    async def _stream_or_value(self, key: Any, value: Any, read: Iterable[object]) -> Any:
        """The result of a task in the worker itself: a stream, if it is a generator; on the loop."""
        if not isinstance(value, GENERATORS):
            return value
        return await self._stream_of(self._run_of(key), value, read, copy_context())

    async def _stream_of(
        self, run: TaskRun, generator: Any, read: Iterable[object], context: Context
    ) -> Stream[Any]:
        run.is_stream = True
        await self._streams.hold(read, run)
        return self._streams.opened_here(run, generator, context, self._threads, self._counts)
