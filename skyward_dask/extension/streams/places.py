"""Where a stream is read: in a slot's process, in a worker, or at a client."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

from distributed import Client, Future, get_worker
from distributed.comm.core import connect
from tornado.ioloop import IOLoop

from skyward_dask.errors import ConfigurationError
from skyward_dask.extension import private_clients
from skyward_dask.extension.connection import refuse_closed
from skyward_dask.extension.streams.names import NAME
from skyward_dask.extension.streams.reading import LoopReading, OnEnd, OnMessage
from skyward_dask.extension.streams.wire import Wire, reach
from skyward_dask.settings import stream_window
from skyward_dask.streams.credit import Window
from skyward_dask.streams.messages import Item, Last


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a stream can be read.

    Attributes
    ----------
    host : str
        The address of the worker that has the generator, or the id of the client that has it.
    id : str
        Unique: a recomputed key has another stream.
    key
        The key of the task, if there is one: as long as somebody wants it, the stream stays open.
    """

    host: str
    id: str
    key: Any = None

    @property
    def lost(self) -> str:
        """What has happened if the connection to the host ends."""
        return f"the connection to {self.host} has ended, and its process may have died."


class Reading(Protocol):
    """A reader's end of one stream. Thread-safe."""

    def take(self) -> Item | Last:
        """Wait for the next item, or for the end."""

    async def take_async(self) -> Item | Last:
        """The same, on any event loop."""

    def close(self) -> None:
        """Read no more; doesn't wait."""


class Place(Protocol):
    """A process that reads streams. Thread-safe."""

    def read(self, ticket: Ticket) -> Reading:
        """Begin to read; doesn't wait."""

    def close_unread(self, ticket: Ticket) -> None:
        """Close a stream that nobody has begun to read; doesn't wait."""


@dataclass(slots=True)
class _Process:
    """This process, if it is a slot's."""

    place: Place | None = None


of_this_process = _Process()


def place_here(held: Future[Any] | None) -> Place:
    """Where the calling thread reads; `held` is the stream's future, where there is one.

    Raises
    ------
    ConfigurationError
        Nowhere: there is neither a worker nor a client.
    """
    if of_this_process.place is not None:
        return of_this_process.place
    try:
        worker = get_worker()
    except ValueError:
        return ClientStreams.of(held.client if held is not None else client_here())
    place: Place | None = worker.extensions.get(NAME)
    if place is None:
        raise ConfigurationError(
            f"the worker at {worker.address} can't read streams: it has no skyward_dask slots. Call "
            "skyward_dask.install(client)."
        )
    return place


def client_here() -> Client:
    """The current client; raises `ConfigurationError` if there is none."""
    try:
        client: Client = Client.current()
    except ValueError:
        raise ConfigurationError(
            "a stream is read in a cluster, and there is none here: read it in a task, or create a "
            "dask.distributed.Client."
        ) from None
    return client


@dataclass(eq=False)
class ClientStreams:
    """The streams that are read at a client: from its scheduler, unless it connects to workers itself."""

    client: Client
    _readings: weakref.WeakSet[LoopReading] = field(default_factory=weakref.WeakSet)

    def __post_init__(self) -> None:
        private_clients.at_close(self.client, NAME, self._end)

    @classmethod
    def of(cls, client: Client) -> ClientStreams:
        """The client's own; raises `ConfigurationError` if it is closed."""
        refuse_closed(client)
        return private_clients.client_extension(client, NAME, cls)

    def read(self, ticket: Ticket) -> LoopReading:
        loop = cast(IOLoop, self.client.loop)
        reading = LoopReading(loop, stream_window(), partial(self._connect, ticket), nullcontext, ticket.lost)
        self._readings.add(reading)
        return reading

    def close_unread(self, ticket: Ticket) -> None:
        cast(IOLoop, self.client.loop).add_callback(self._connect, ticket, None, _ignore, _ignore)

    def _connect(self, ticket: Ticket, window: Window | None, on_message: OnMessage, on_end: OnEnd) -> Wire:
        client: Any = self.client
        is_direct = client.direct_to_workers and "://" in ticket.host
        address = ticket.host if is_direct else client.scheduler.address
        return wired(address, client, ticket, window, on_message, on_end)

    def _end(self) -> None:
        for reading in list(self._readings):
            reading.abandon("its reader's client has closed.")


def wired(
    address: str,
    here: Any,
    ticket: Ticket,
    window: Window | None,
    on_message: OnMessage,
    on_end: OnEnd,
) -> Wire:
    """A connection of a worker or client to the host of a stream; without a window, it only closes it."""
    wire = Wire(on_message, on_end)
    hello = {
        "op": NAME,
        "host": ticket.host,
        "stream": ticket.id,
        "window": None if window is None else (window.items, window.nbytes),
    }
    connecting = partial(connect, address, **here.connection_args)
    if address == ticket.host:
        connecting = partial(reach, connecting, partial(here.scheduler.ncores, workers=[address]))
    wire.connect(connecting, hello)
    return wire


def _ignore(*_: object) -> None:
    """Nobody reads what the host of a closed stream says."""
