"""The streams of one worker: those of its tasks, which others read, and those that its tasks read.

```
 a task's generator ─▶ opened: a `Stream` is the task's result, its `Hosted` stays here
                         ├─ in a thread slot: a `ThreadProducer`, whose thread leaves its slot while it waits
                         ├─ in a process slot: a `ChildProducer`, whose run does
                         └─ asynchronous: a `LoopProducer`
 the scheduler ── the key is gone ─▶ closed
```
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from threading import Thread, current_thread
from types import AsyncGeneratorType
from typing import Any
from uuid import uuid4

from distributed import Worker as DaskWorker
from distributed.threadpoolexecutor import ThreadPoolExecutor as DaskThreads

from skyward_dask.extension import private
from skyward_dask.extension.collections.worker_collections import WorkerCollections
from skyward_dask.extension.streams.hosts import HOLD, Hosted, Hosts, Producer
from skyward_dask.extension.streams.names import DROPPED, GONE, NAME
from skyward_dask.extension.streams.places import Ticket, wired
from skyward_dask.extension.streams.producers import LoopProducer, ThreadProducer
from skyward_dask.extension.streams.reading import Connect, LoopReading, OnEnd, OnMessage
from skyward_dask.extension.streams.stream import Stream
from skyward_dask.extension.streams.wire import Wire
from skyward_dask.extension.task_run import TaskRun, current
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.stream_slots import StreamSlots
from skyward_dask.extension.worker.thread_slots import Occupied
from skyward_dask.settings import grace, stream_window
from skyward_dask.streams.credit import Window


class WorkerStreams:
    """What one worker does for streams. Used on its loop, except where a method says otherwise.

    Attributes
    ----------
    runs : dict of TaskRun
        The runs that have streams, by key.
    slots : StreamSlots
    """

    def __init__(self, worker: DaskWorker) -> None:
        self._worker = worker
        self.hosts = Hosts()
        self.runs: dict[Any, TaskRun] = {}
        self._ids: dict[Any, str] = {}
        self.slots = StreamSlots(worker, self.runs)
        # these stay as long as the worker lives: streams outlive an uninstall
        worker.handlers[NAME] = self.hosts.accept
        worker.stream_handlers[GONE] = self._gone

    @classmethod
    def of(cls, worker: DaskWorker) -> WorkerStreams:
        """The worker's own, which is created on first use."""
        if (found := worker.extensions.get(NAME)) is None:
            found = worker.extensions[NAME] = cls(worker)
        assert isinstance(found, cls)
        return found

    # --- streams of this worker's tasks --------------------------------------------------------------------

    def opened(self, run: TaskRun, make: Callable[[Hosted], Producer]) -> Stream[Any]:
        """Open the stream of a run."""
        ticket = Ticket(self._worker.address, uuid4().hex, run.key)
        hosted = Hosted(partial(self._over, ticket, run), self.hosts.traffic)
        hosted.producer = make(hosted)
        self._close(run.key, "its task was computed again.")
        self.hosts.add(ticket.id, hosted)
        self._ids[run.key], self.runs[run.key] = ticket.id, run
        self.slots.watch()
        run.when_stopped.append(partial(self._stopped, ticket))
        if run.stopped:
            self._stopped(ticket)
        return Stream(ticket)

    def _stopped(self, ticket: Ticket) -> None:
        """The key was released while its task was under way: its ticket will never be in memory."""
        if self._ids.get(ticket.key) == ticket.id:
            self._close(ticket.key, "its task was cancelled.")

    async def hold(self, values: Iterable[object], run: TaskRun) -> None:
        """The run becomes a stream, and its task ends: what it will read stays open as long as the run.

        The scheduler must not learn of the task's end before: nobody else may want the keys of what it reads.
        """
        tickets = [value.ticket for value in values if isinstance(value, Stream)]
        run.when_over += await asyncio.gather(*map(self._hold, tickets))

    async def _hold(self, ticket: Ticket) -> Callable[[], None]:
        if ticket.host == self._worker.address:
            return self.hosts.hold(ticket.id, object())
        held = asyncio.Event()
        wire = self._wire(ticket, Window(*HOLD), lambda message: held.set(), held.set)
        await held.wait()
        return wire.close

    def _over(self, ticket: Ticket, run: TaskRun, _: Hosted) -> None:
        if self.runs.get(run.key) is run:
            del self.runs[run.key]
        if self._ids.get(run.key) != ticket.id:  # otherwise it stays, for readers that come too late
            self.hosts.remove(ticket.id)
        WorkerCollections.end_stream(self._worker, run)
        run.close_what_it_read()
        while run.when_over:
            run.when_over.pop()()

    def opened_here(
        self,
        run: TaskRun,
        generator: Generator[Any] | AsyncIterator[Any],
        context: Context,
        threads: DaskThreads,
        counts: Counts,
    ) -> Stream[Any]:
        """Open the stream of a run that has its generator in this worker, in a thread or in a coroutine."""
        slot = _ThreadSlot(self._worker, run, threads, counts, context)
        run.has_thread = slot.is_held

        def make(hosted: Hosted) -> Producer:
            if isinstance(generator, AsyncGeneratorType):
                return LoopProducer(generator, hosted, context, grace())
            assert isinstance(generator, Iterator)
            return ThreadProducer(generator, hosted, slot.begin, slot.resting)

        return self.opened(run, make)

    # --- their end -----------------------------------------------------------------------------------------

    def dropped(self, key: Any) -> None:
        """A task's value is no longer in memory: if it was a stream's ticket, nobody may want it any more."""
        if key in self._ids:
            self._worker.batched_stream.send({"op": DROPPED, "key": key})

    async def _gone(self, key: Any) -> None:
        self._close(key, "its task was cancelled, or nobody holds its future any more.")

    def _close(self, key: Any, reason: str) -> None:
        if (stream := self._ids.pop(key, None)) is not None:
            self.hosts.close(stream, reason)

    def close(self) -> None:
        """The worker closes."""
        self.hosts.end(f"the worker at {self._worker.address} is closing.")

    # --- what tasks of this worker read --------------------------------------------------------------------

    def read(self, ticket: Ticket) -> LoopReading:
        """Begin to read in a thread, or in a coroutine, of a task; from any thread."""
        run = current.get()
        connect, loop = self.connect(ticket), self._worker.loop
        resting = private.outside_pool if run is None or run.is_stream else partial(self._resting, run.key)
        reading = LoopReading(loop, stream_window(), connect, resting, ticket.lost)
        if run is not None:
            run.reads.append(reading)
            run.when_stopped.append(partial(reading.abandon, "its reader was cancelled."))
        return reading

    @contextmanager
    def _resting(self, key: Any) -> Iterator[None]:
        """In the block, a task waits for an item, and its slot is free for others."""
        loop = self._worker.loop
        with private.outside_pool() as is_outside:
            if is_outside:
                loop.add_callback(self.slots.wait, key)
            try:
                yield
            finally:
                loop.add_callback(self.slots.go_on, key)

    def close_unread(self, ticket: Ticket) -> None:
        """Close a stream that nobody has read; from any thread."""
        self._worker.loop.add_callback(self._close_unread, ticket)

    def _close_unread(self, ticket: Ticket) -> None:
        if ticket.host == self._worker.address:
            self.hosts.close_unread(ticket.id)
        else:
            self._wire(ticket, None, lambda message: None, lambda: None)

    def connect(self, ticket: Ticket) -> Connect:
        """How a reader here reaches the stream."""
        if ticket.host == self._worker.address:
            return partial(self.hosts.attach_here, ticket.id)
        return partial(self._wire, ticket)

    def _wire(self, ticket: Ticket, window: Window | None, on_message: OnMessage, on_end: OnEnd) -> Wire:
        worker: Any = self._worker
        is_workers = "://" in ticket.host
        address = ticket.host if is_workers else worker.scheduler.address
        return wired(address, worker, ticket, window, on_message, on_end)


class _ThreadSlot:
    """The thread slot in which a generator is stepped, while it has one.

    Parameters
    ----------
    worker : distributed.Worker
    run : TaskRun
    threads : distributed.threadpoolexecutor.ThreadPoolExecutor
    counts : Counts
    context : contextvars.Context
        The task's.
    """

    def __init__(
        self, worker: DaskWorker, run: TaskRun, threads: DaskThreads, counts: Counts, context: Context
    ) -> None:
        self._worker, self._run, self._threads, self._counts = worker, run, threads, counts
        self._context = context
        self._occupied: Occupied
        self._thread: Thread | None = None

    def is_held(self) -> bool:
        """Whether the generator, or what it calls, has a thread of the pool."""
        return private.is_of(self._threads, self._thread)

    def begin(self, call: Callable[[], None]) -> None:
        """Have the generator stepped in a thread of Dask's pool."""
        self._threads.submit(self._context.run, self._step, call)

    def _step(self, call: Callable[[], None]) -> None:
        current.set(self._run)
        thread = private.stream_thread(self._worker, self._run.key)
        with thread, self._counts.threads.run(self._run.key) as self._occupied:
            self._thread = current_thread()
            try:
                call()
            finally:
                self._thread = None

    @contextmanager
    def resting(self) -> Iterator[None]:
        """In the block, the generator waits, and its slot is free for others."""
        self._occupied.leave()
        with private.outside_pool():
            yield
        self._occupied.resume()
