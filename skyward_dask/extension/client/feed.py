"""`feed`: a client's iterable as a stream that tasks read.

```
 client ── FEEDS ──▶ scheduler        a connection over which the client is told of readers
 task's worker ── NAME ──▶ scheduler ── token ──▶ client ── MEETS, token ──▶ scheduler: relays
```

The client steps the iterator in a thread of its own, or on its event loop, as far as the reader has granted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from contextvars import copy_context
from typing import Any, TypeVar, cast
from uuid import uuid4

from distributed import Client, get_worker
from distributed.comm.core import Comm, connect
from tornado.ioloop import IOLoop

from skyward_dask.errors import ConfigurationError
from skyward_dask.extension import private_clients
from skyward_dask.extension.connection import checked, refuse_closed
from skyward_dask.extension.streams.hosts import Hosted, Hosts, Producer
from skyward_dask.extension.streams.names import FEEDS, MEETS
from skyward_dask.extension.streams.places import Ticket, client_here
from skyward_dask.extension.streams.producers import LoopProducer, ThreadProducer
from skyward_dask.extension.streams.stream import Stream
from skyward_dask.settings import grace
from skyward_dask.slots.aside import Tasks
from skyward_dask.streams.producing import close

T = TypeVar("T")


def feed(iterable: Iterable[T] | AsyncIterable[T], client: Client | None = None) -> Stream[T]:
    """A stream of a client's items, to be passed to a task, which reads them while the client produces them.

    Parameters
    ----------
    iterable : iterable or asynchronous iterable
        Stepped by a thread of this process, or on the client's event loop, once a task asks for the first
        item, and as far as the task takes them. It is closed when the task doesn't read any more.
    client : distributed.Client, optional
        Defaults to the current one.

    Returns
    -------
    Stream
        It has one reader.

    Examples
    --------
    >>> client.submit(running_mean, feed(samples)).result()  # doctest: +SKIP
    """
    if not isinstance(iterable, Iterable | AsyncIterable):
        raise ConfigurationError(f"feed takes an iterable, not {iterable!r}.")
    if client is None:
        _refuse_in_task()
        client = client_here()
    feeds = Feeds.of(checked(client))
    return feeds.add(iterable)


def _refuse_in_task() -> None:
    try:
        get_worker()
    except ValueError:
        return
    raise ConfigurationError(
        "feed is for clients, and was called in a task: have the task yield, and pass its future to those "
        "that read, or pass feed the client of a `with worker_client() as client` block."
    )


class Feeds:
    """The streams that one client feeds."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = cast(IOLoop, client.loop)
        self.hosts = Hosts()
        self._tasks = Tasks()
        self._comm: Comm | None = None
        self._listening: asyncio.Task[None] | None = None
        private_clients.at_close(client, FEEDS, self._close)

    @classmethod
    def of(cls, client: Client) -> Feeds:
        """The client's own; raises `ConfigurationError` if it is closed."""
        refuse_closed(client)
        return private_clients.client_extension(client, FEEDS, cls)

    def add(self, iterable: Iterable[Any] | AsyncIterable[Any]) -> Stream[Any]:
        """From any thread, and from the client's loop."""
        ticket = Ticket(self._client.id, uuid4().hex)
        context = copy_context()

        def begin(call: Callable[[], None]) -> None:
            threading.Thread(target=context.run, args=(call,), name="skyward-feed", daemon=True).start()

        def host() -> None:
            hosted = Hosted(lambda _: self.hosts.remove(ticket.id), self.hosts.traffic)
            hosted.unwanted = "its task has ended without reading it."  # as soon as nobody holds it any more
            producer: Producer
            if isinstance(iterable, AsyncIterable):
                producer = LoopProducer(aiter(iterable), hosted, context, grace())
            else:
                producer = ThreadProducer(cast(Iterator[Any], _Lazy(iterable)), hosted, begin, nullcontext)
            hosted.producer = producer
            self.hosts.add(ticket.id, hosted)
            if self._listening is None or self._listening.done():
                self._listening = asyncio.ensure_future(self._listen())

        self._loop.add_callback(host)
        return Stream(ticket)

    def end(self, stream: Stream[Any]) -> None:
        """Nobody will read the stream any more; from any thread."""
        self._loop.add_callback(self.hosts.close, stream.ticket.id, "its task has ended.")

    async def _listen(self) -> None:
        """Be told of readers, as long as the client lives."""
        with suppress(OSError, asyncio.CancelledError):
            self._comm = await self._connect()
            await self._comm.write({"op": FEEDS, "client": self._client.id, "reply": False})
            while True:
                self._tasks.spawn(self._meet(**await self._comm.read()))
        if self._comm is not None:
            self._comm.abort()

    async def _meet(self, token: str, stream: str, window: Any) -> None:
        """Connect to a reader."""
        with suppress(OSError):
            comm = await self._connect()
            await comm.write({"op": MEETS, "token": token, "reply": False})
            await self.hosts.accept(comm, stream, window)

    async def _connect(self) -> Comm:
        client: Any = self._client
        comm: Comm = await connect(client.scheduler.address, **client.connection_args)
        return comm

    def _close(self) -> None:
        """The client closes; maybe in another thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.add_callback(self._end)

    def _end(self) -> None:
        self.hosts.end("its client has closed.")
        if self._listening is not None:
            self._listening.cancel()


class _Lazy:
    """An iterable's iterator, which is made in the thread that steps it."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable
        self._iterator: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        return next(self._iterator)

    def close(self) -> None:
        """Close the iterator, if it is a generator or a file, say."""
        close(self._iterator)
