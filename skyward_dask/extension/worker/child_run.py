"""A task's run in a process slot, from `submit` to the message with which Dask's executors answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from dask.base import get_annotations
from distributed import Reschedule
from distributed import Worker as DaskWorker
from distributed.core import error_message
from distributed.metrics import context_meter, time
from distributed.sizeof import safe_sizeof as sizeof

from skyward_dask.errors import SerializationError, SlotCrashed, SlotStartFailed, TaskTimeout
from skyward_dask.extension.child.task import Parts, run_task
from skyward_dask.extension.dask_errors import called
from skyward_dask.extension.parcel import type_of
from skyward_dask.extension.private import GraphNode, Task
from skyward_dask.extension.streams.stream import Stream
from skyward_dask.extension.task_run import TaskRun
from skyward_dask.extension.tracebacks import shortened
from skyward_dask.extension.worker.child_stream import ChildProducer
from skyward_dask.extension.worker.console import Console
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.requests import Requests
from skyward_dask.extension.worker.routing import Limits, Place, Reason, Route
from skyward_dask.extension.worker.streams import WorkerStreams
from skyward_dask.extension.worker.values import Values
from skyward_dask.slots.aside import aside
from skyward_dask.slots.framing import Part
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.outcomes import PoolClosed, RunEnded
from skyward_dask.slots.pickling import as_buffer, named_arguments
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.runs import Request, Run

#: Size of a task in bytes, small inputs included, from which pickling it takes a millisecond.
_LARGE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Facilities:
    """What all runs of a node have in common.

    Attributes
    ----------
    worker : distributed.Worker
    values : Values
    counts : Counts
    console : Console
        Writes what a task has printed, before its result is handed on.
    helpers : concurrent.futures.Executor
    requested : concurrent.futures.Executor
        For tasks' calls to the worker that may block.
    streams : WorkerStreams
    """

    worker: DaskWorker
    values: Values
    counts: Counts
    console: Console
    helpers: Executor
    requested: Executor
    streams: WorkerStreams


class ChildRun:
    """One run of a task in a child. Used on the worker's loop only.

    Parameters
    ----------
    facilities : Facilities
    task_run : TaskRun
    route : Route
        As which the run counts.
    spec : GraphNode
    data : mapping
        The task's dependencies.
    delay : float
        Seconds by which the scheduler's clock is ahead.
    open_stream : callable
        Called with this run if its task turns out to yield; gives it a producer.

    Attributes
    ----------
    task_run : TaskRun
    spec : GraphNode
    data : mapping
        The task's dependencies.
    future : asyncio.Future of dict
        The message that `distributed.worker._run_task_simple` would return; never an exception.
    """

    def __init__(
        self,
        facilities: Facilities,
        task_run: TaskRun,
        route: Route,
        spec: GraphNode,
        data: Mapping[Any, Any],
        delay: float,
        open_stream: Callable[[ChildRun], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._facilities, self._values = facilities, facilities.values
        self._address = facilities.worker.address
        self.task_run, self._route = task_run, route
        self.spec, self.data, self._delay = spec, data, delay
        self.requests = Requests(facilities.worker, task_run, facilities.requested, facilities.streams)
        self._begun, self._measured = time(), 0.0
        self._slot, self._cpu, self._peak = 0, 0.0, 0
        self._open_stream = open_stream

    def start(self, pool: Pool, limits: Limits) -> None:
        """Have the pool run the task."""
        key = self.spec.key
        self._begun = time()
        small, large = self._values.split(self.data)
        request = Request(
            key=str(key),
            function=run_task,
            args=(_compact(self.spec), small, key, self.requests.context.run(get_annotations), tuple(large)),
            attached=partial(self._values.forms, large),
            serve=self._serve,
            report=self._report,
            again=self.requests.again,
            pieces=partial(_pieces, self.spec, self.data),
            timeout=limits.timeout,
            memory_limit=limits.memory_limit,
            is_large=self._values.has_to_be_made(large) or _is_large(self.spec, small),
            take=self._take_item,
            take_packed=self._take_items,
        )
        run = Run(request)
        run.when_over(self._over)
        self._pool = pool
        self.task_run.enter(pool, run)
        if (producer := self.requests.producer) is not None:
            producer.enter(pool, run)
        pool.start(run)
        if self.task_run.stopped:
            pool.stop(run)

    # --- a task that yields ------------------------------------------------------------------------------

    def _serve(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "stream_opened" and self.requests.producer is None:  # it wasn't known to yield before
            self._open_stream(self)
        return self.requests.serve(name, args, kwargs)

    def become(self, producer: ChildProducer) -> None:
        """The task is a stream: its run goes on, or will begin, as that."""
        self.requests.producer = producer
        if self.task_run.run is not None and self.task_run.pool is not None:
            producer.enter(self.task_run.pool, self.task_run.run)

    def finish_with(self, stream: Stream[Any]) -> None:
        """The stream is the task's result."""
        size, kind, stop = sizeof(stream), type(stream), time()
        message = {"op": "task-finished", "status": "OK", "result": stream, "nbytes": size, "type": kind}
        message["start"], message["stop"] = self._begun + self._delay, stop + self._delay
        message["thread"] = self.task_run.slot or 0
        if not self.future.done():
            self.future.set_result(message)

    def _take_item(self, form: Form) -> None:
        if (producer := self.requests.producer) is not None:
            producer.take(form)

    def _take_items(self, count: int, block: Part) -> None:
        if (producer := self.requests.producer) is not None:
            producer.take_packed(count, block)

    def _over_as_stream(self, producer: ChildProducer, outcome: Form | BaseException | None) -> None:
        error = outcome if isinstance(outcome, BaseException) else None
        self._end({"actual_exception": error})
        producer.over(outcome)

    # --- its end -------------------------------------------------------------------------------------------

    def _report(
        self, metrics: list[tuple[Any, float, str]], samples: dict[str, Any] | None, cpu: float, peak: int
    ) -> None:
        """Count what the child has measured as the task's, as if the task's thread had measured it."""
        self._slot = self.task_run.slot or 0
        self._cpu, self._peak = cpu, peak
        for label, value, unit in metrics:
            self._digest(label, value, unit)
            if unit == "seconds":
                self._measured += value
        self.requests.profile(samples)

    def _digest(self, label: Any, value: float, unit: str) -> None:
        self.requests.context.run(context_meter.digest_metric, label, value, unit)

    def _over(self, run: Run) -> None:
        outcome = run.outcome
        if (producer := self.requests.producer) is not None:
            self._over_as_stream(producer, outcome)
        elif isinstance(outcome, Form) and outcome.is_long:
            self._loading = self._loop.create_task(self._load_aside(outcome))
        else:
            self._loaded(outcome, self._message(partial(self._value, outcome)))

    async def _load_aside(self, outcome: Form) -> None:
        value = partial(self._value, outcome)
        self._loaded(outcome, await aside(self._facilities.helpers, self._message, value))

    def _loaded(self, outcome: Form | BaseException | None, message: dict[str, Any]) -> None:
        is_foreign = isinstance(message.get("actual_exception"), SerializationError)
        # a client in the worker's own process would be handed the closed result
        if isinstance(outcome, Form) and is_foreign and not self._address.startswith("inproc"):
            self._loading = self._loop.create_task(self._take_foreign(outcome, message))
        else:
            self._end(message)

    async def _take_foreign(self, form: Form, message: dict[str, Any]) -> None:
        """Keep a result that only slots can unpickle, for other tasks; if no slot can, the error stands."""
        key = self.spec.key
        parts = tuple(map(as_buffer, form.views()))
        asked = await self._ask(Request(str(key), type_of, parts, serve=self._serve))
        if isinstance(asked, Form):
            message = self._message(lambda: self._values.foreign(key, form, asked.load()))
        self._end(message)

    async def _ask(self, request: Request) -> Form | BaseException | None:
        run, over = Run(request), asyncio.Event()
        run.when_over(lambda _: over.set())
        try:
            self._pool.start(run)
        except PoolClosed as closed:
            return closed
        await over.wait()
        return run.outcome

    def _message(self, value_of: Callable[[], Any]) -> dict[str, Any]:
        """Dask's message for an outcome; its value is unpickled here."""
        try:
            with shortened():
                value, size = called(self.spec.key, lambda: _sized(value_of()))
        except RunEnded:  # nobody wants it any more, or its pool was ended with the worker
            return _failure(Reschedule())
        except Exception as error:  # the task's own: Dask gives it to whoever waits for the result
            if isinstance(error, (SlotCrashed, SlotStartFailed, TaskTimeout)):
                error.worker = error.worker or self._address  # a nested task's error has its worker
            return _failure(error)
        kind = type(value) if value is not None else None
        return {"op": "task-finished", "status": "OK", "result": value, "nbytes": size, "type": kind}

    def _value(self, outcome: Form | BaseException | None) -> Any:
        if isinstance(outcome, Form):
            return self._values.take(self.spec.key, outcome)
        assert outcome is not None
        raise outcome

    def _end(self, message: dict[str, Any]) -> None:
        if self._facilities.console.is_behind:
            self._loading = self._loop.create_task(self._end_when_written(message))
        else:
            self._end_now(message)

    async def _end_when_written(self, message: dict[str, Any]) -> None:
        await aside(self._facilities.helpers, self._facilities.console.wait_written)
        self._end_now(message)

    def _end_now(self, message: dict[str, Any]) -> None:
        if "result" in message:
            self.requests.bind(message["result"])
        self.requests.end()
        self.task_run.leave()
        stop = time()
        self._count(stop - self._begun, message.get("actual_exception"))
        self._digest("thread-noncpu", max(0.0, stop - self._begun - self._measured), "seconds")
        message["start"], message["stop"] = self._begun + self._delay, stop + self._delay
        message["thread"] = self._slot  # a row of the dashboard's task stream for each slot
        if not self.future.done():  # otherwise the worker is closing, and has cancelled it
            self.future.set_result(message)

    def _count(self, wall: float, error: BaseException | None) -> None:
        counts = self._facilities.counts
        counts.prefixes.add(self.spec.key, self._cpu, wall, self._peak, error)
        shuffled = self.requests.shuffled and self._route.reason is Reason.PLAIN
        counts.count(Route(Place.CHILD, Reason.P2P) if shuffled else self._route)


def failed(error: BaseException, delay: float) -> asyncio.Future[dict[str, Any]]:
    """Dask's message for a task that has failed before it ran."""
    now = time() + delay
    future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    future.set_result(_failure(error) | {"start": now, "stop": now, "thread": 0})
    return future


def _sized(value: Any) -> tuple[Any, int]:
    return value, sizeof(value)


def _failure(error: BaseException) -> dict[str, Any]:
    return {**error_message(error), "op": "task-erred", "actual_exception": error}


def _compact(spec: GraphNode) -> GraphNode | Parts:
    return (spec.func, spec.args, spec.kwargs) if type(spec) is Task else spec


def _is_large(spec: GraphNode, small: Mapping[Any, Any]) -> bool:
    # the arguments alone: Dask's size of a whole spec takes as long as pickling a small one
    given = (*getattr(spec, "args", ()), *getattr(spec, "kwargs", {}).values(), *small.values())
    return sum(map(sizeof, given)) > _LARGE


def _pieces(spec: GraphNode, data: Mapping[Any, Any]) -> Iterator[tuple[str, object]]:
    """The parts of a task, with the names that an error message should use for them."""
    for key, value in data.items():
        yield f"the result of task {key!r}, an argument", value
    function = getattr(spec, "func", None)
    if function is not None:
        yield "the function", function
    yield from named_arguments(getattr(spec, "args", ()), getattr(spec, "kwargs", {}))
