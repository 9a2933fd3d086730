"""Streams in a slot's process: a task that yields sends its items to the worker, and reads those of others.

A generator is stepped by the main thread, in its task's context, as one run from its first step to its end.
What the reader has granted is in the status page: so as long as there is credit, no message comes back.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from time import monotonic, sleep
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from skyward_dask.errors import FORKED, WorkerUnreachable
from skyward_dask.extension.child.futures import lend_futures
from skyward_dask.extension.child.worker_facade import ChildWorker
from skyward_dask.extension.streams.places import Ticket
from skyward_dask.slots.channel import ChannelClosed
from skyward_dask.slots.child.forks import forks_end_here
from skyward_dask.slots.child.link import Link
from skyward_dask.slots.packing import pack
from skyward_dask.streams.credit import Credit
from skyward_dask.streams.messages import Broken, Item, Last, Outcome, size_of
from skyward_dask.streams.producing import CLOSED, close, produce

#: Seconds for which items are collected: less than anybody notices.
_TOGETHER = 0.001
#: Bytes of an item that is collected; a larger one goes alone, as some of it may be in shared memory.
_SMALL = 16 * 1024
#: Parts of such an item: arbitrary.
_FEW = 100
#: What a task may return to be a stream.
GENERATORS = (GeneratorType, AsyncGeneratorType)


def yielded(
    generator: Generator[Any] | AsyncGenerator[Any], worker: ChildWorker, link: Link, outbox: Outbox
) -> Outcome:
    """Send what a task's generator yields, as its reader takes it; raises what the generator raises."""
    iterator: Iterator[Any] = Stepped(generator) if isinstance(generator, AsyncGeneratorType) else generator  # type: ignore[assignment]
    link.pause()
    window = link.call("stream_opened")
    link.begin_stream()
    try:
        if window is None:
            close(iterator)
            return CLOSED
        with outbox.emptied():
            return produce(iterator, ChildPort(link, worker, window, outbox))
    finally:
        link.resume()


class ChildPort:
    """The connection of the run's generator to its reader, through the worker.

    Parameters
    ----------
    link : Link
    worker : ChildWorker
    window : int
        Bytes of the reader's window.
    outbox : Outbox
    """

    def __init__(self, link: Link, worker: ChildWorker, window: int, outbox: Outbox) -> None:
        self._link, self._worker, self._outbox = link, worker, outbox
        self._credit = Credit(window)

    def step(self, iterator: Iterator[Any]) -> Any:
        self._link.resume()
        try:
            with forks_end_here():
                value = next(iterator)
        finally:
            self._link.pause()
        lend_futures(value, self._worker, self._link)
        return value

    def wait_credit(self) -> bool:
        while self._is_open():
            if self._credit.may_produce:
                return True
            self._wait(False)
        return False

    def wait_room(self, size: int) -> bool:
        while self._is_open():
            if self._credit.fits(size):
                return True
            self._wait(True)
        return False

    def _is_open(self) -> bool:
        self._credit.items, self._credit.nbytes, is_closing = self._link.granted()
        return not is_closing

    def _wait(self, is_held: bool) -> None:
        """Wait until there is more credit than this process knows of."""
        self._outbox.flush()
        self._link.call("stream_wait", self._credit.items, is_held)

    def send(self, item: Item) -> None:
        size = size_of(item)
        self._credit.send(size)
        self._outbox.put(list(item), size)


class Outbox:
    """Items on their way to the worker: at once, or, if they come in quick succession, a few together.

    Those that wait for others are in the page that this process shares with its worker: so they arrive even
    if the generator's next step ends the process.

    Notes
    -----
    `put` is for the main thread. A thread sends what would otherwise wait for the generator's next step.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._count = 0
        self._sent = 0.0
        self._is_waiting = threading.Event()
        self._sender: threading.Thread | None = None

    def put(self, item: list[Any], size: int) -> None:
        if size > _SMALL or len(item) > _FEW:
            self.flush()
            self._link.send_item(item)
            return
        block = pack(item)
        with self._lock:
            if not self._link.keep_item(block):
                self._flush()
                self._link.keep_item(block)
            self._count += 1
            if monotonic() - self._sent > _TOGETHER:
                self._flush()
            elif self._count == 1:
                self._have_sent()

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """At the end of the block, send what is left.

        Not if this process ends: an interrupt may have come in the middle of a frame.
        """
        try:
            yield
        except Exception:
            self.flush()
            raise
        self.flush()

    def flush(self) -> None:
        """Send what is left."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._count:
            count, self._count = self._count, 0
            self._link.send_items(count)
            self._sent = monotonic()

    def _have_sent(self) -> None:
        """Have the thread send the items soon."""
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, name="skyward-stream-sender", daemon=True)
            self._sender.start()
        self._is_waiting.set()

    def _send(self) -> None:
        while True:
            self._is_waiting.wait()
            self._is_waiting.clear()
            sleep(_TOGETHER)
            with suppress(OSError, ChannelClosed):  # the worker has ended, and this process ends with it
                self.flush()


class Stepped:
    """An asynchronous generator, stepped on a loop of its own, in one context."""

    def __init__(self, generator: AsyncGenerator[Any]) -> None:
        self._generator = generator
        self._runner = asyncio.Runner()

    def __iter__(self) -> Stepped:
        return self

    def __next__(self) -> Any:
        try:
            return self._runner.run(_next(self._generator))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._runner.run(self._generator.aclose())
        self._runner.close()


async def _next(generator: AsyncGenerator[Any]) -> Any:
    return await anext(generator)


class ChildStreams:
    """Reads streams through the worker, which waits for their items on this process's behalf.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = count(1)
        self._process = os.getpid()
        # closed from finalizers too, which may run while this thread sends something else
        self._closing: queue.SimpleQueue[tuple[int, Ticket | None]] = queue.SimpleQueue()
        self._closer: threading.Thread | None = None

    def read(self, ticket: Ticket) -> ChildReading:
        if os.getpid() != self._process:
            raise WorkerUnreachable(FORKED)
        number = next(self._numbers)
        return ChildReading(self, self._link, number, ticket)

    def close_unread(self, ticket: Ticket) -> None:
        self.hang_up(0, ticket)

    def hang_up(self, number: int, ticket: Ticket | None = None) -> None:
        """Tell the worker that nobody reads any more; from any thread, and from finalizers."""
        self._closing.put((number, ticket))

    def begin(self) -> None:
        """Have a thread tell the worker what is closed."""
        if self._closer is None:
            self._closer = threading.Thread(target=self._tell, name="skyward-stream-closer", daemon=True)
            self._closer.start()

    def _tell(self) -> None:
        while True:
            number, ticket = self._closing.get()
            with suppress(WorkerUnreachable, OSError):  # the run has ended, and what it read is closed
                self._link.tell("stream_close", number, ticket)


class ChildReading:
    """A reader's end of one stream in a task: the worker sends what has arrived there."""

    def __init__(self, streams: ChildStreams, link: Link, number: int, ticket: Ticket) -> None:
        self._streams, self._link = streams, link
        self._number, self._ticket = number, ticket
        self._lock = threading.Lock()
        self._items: deque[Item] = deque()
        self._last: Last | None = None
        streams.begin()

    def take(self) -> Item | Last:
        with self._lock:
            if not self._items and self._last is None:
                self._fetch()
            if self._items:
                return self._items.popleft()
            assert self._last is not None
            return self._last

    def _fetch(self) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        items, self._last = self._link.call("stream_read", self._number, self._ticket, is_main)
        self._items.extend(items)

    async def take_async(self) -> Item | Last:
        return await asyncio.to_thread(self.take)

    def close(self) -> None:
        self._last = self._last or Broken("it was closed.")
        self._streams.hang_up(self._number)
