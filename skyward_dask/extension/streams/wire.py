"""A connection of Dask's between a stream's reader and its host; each stream that is read has its own.

So a slow reader holds up nobody else, and whoever is left alone notices at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple
from typing import Any

from distributed.comm.core import Comm
from distributed.protocol.serialize import to_serialize

from skyward_dask.streams.messages import (
    Broken,
    Grant,
    Held,
    Items,
    Message,
    Opened,
    Packed,
    Part,
    Raised,
    Reference,
    Returned,
    SentItem,
    Shared,
    Taken,
)

#: Bytes from which a part travels as a frame of its own, without being copied.
_LARGE = 64 * 1024
#: Seconds after which a worker that can't be reached may have left: Dask tries to connect for 30.
_DOUBT = 0.2


async def reach(connecting: Callable[[], Awaitable[Comm]], is_there: Callable[[], Awaitable[object]]) -> Comm:
    """Connect to a worker for as long as it may be there.

    Raises
    ------
    OSError
        It is gone, or can't be reached.
    """
    connection = asyncio.ensure_future(connecting())
    try:
        while not (await asyncio.wait([connection], timeout=_DOUBT))[0]:
            if not await is_there():
                raise OSError("the worker has left the cluster")
        return connection.result()
    finally:
        connection.cancel()


class Wire:
    """One end of a connection. Used on one event loop only.

    Parameters
    ----------
    on_message : callable
        Takes one message.
    on_end : callable
        Called once, when the connection has ended.
    """

    def __init__(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._on_message, self._on_end = on_message, on_end
        self._comm: Comm | None = None
        self._outbox: list[Message] = []
        self._running: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    def send(self, message: Message) -> None:
        self._outbox.append(message)
        if self._comm is not None and self._writing is None:
            self._writing = asyncio.ensure_future(self._write(self._comm))

    def connect(self, connecting: Callable[[], Awaitable[Comm]], hello: dict[str, Any]) -> None:
        """Make the connection, and read from it."""
        self._running = asyncio.ensure_future(self._connect(connecting, hello))

    async def _connect(self, connecting: Callable[[], Awaitable[Comm]], hello: dict[str, Any]) -> None:
        comm: Comm | None = None
        try:
            comm = await connecting()
            await comm.write({**hello, "reply": False})
        except (OSError, RuntimeError, asyncio.CancelledError):  # nobody is there, or we are closing
            if comm is not None:
                comm.abort()
            self._on_end()
            return
        await self.run(comm)

    async def run(self, comm: Comm) -> None:
        """Read until the connection ends."""
        self._comm = comm
        if self._outbox:
            self._writing = asyncio.ensure_future(self._write(comm))
        try:
            while True:
                for plain in await comm.read():
                    self._on_message(_read(plain))
        except (OSError, asyncio.CancelledError):
            pass  # the other end is gone, or this one closes
        finally:
            comm.abort()
            self._comm = None
            self._on_end()

    async def _write(self, comm: Comm) -> None:
        try:
            while self._outbox:
                batch, self._outbox = self._outbox, []
                await comm.write([_written(message) for message in batch])
        except OSError:  # whoever reads notices the end
            return
        finally:
            self._writing = None

    def close(self) -> None:
        """End the connection."""
        if self._comm is not None:
            self._comm.abort()
        elif self._running is not None:
            self._running.cancel()


_KINDS: dict[str, Callable[..., Message]] = {
    "items": Items,
    "packed": Packed,
    "grant": Grant,
    "held": Held,
    "shared": Shared,
    "opened": Opened,
    "returned": Returned,
    "raised": Raised,
    "broken": Broken,
    "taken": Taken,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def _written(message: Message) -> tuple[Any, ...]:
    """A message as values that Dask can send."""
    match message:
        case Items(items):
            return "items", [_sendable(item) for item in items]
        case Packed(count, block):
            return "packed", count, _part(block)
        case Returned(item) | Raised(item):
            return _NAMES[type(message)], _sendable(item)
    return _NAMES[type(message)], *astuple(message)


def _read(plain: Sequence[Any]) -> Message:
    if plain[0] == "items":
        return Items([[_arrived(part) for part in item] for item in plain[1]])
    return _KINDS[plain[0]](*plain[1:])


def _sendable(item: SentItem) -> list[Any]:
    return [_part(part) for part in item]


def _arrived(part: Any) -> Part | Reference:
    return Reference(*part) if isinstance(part, tuple) else part


def _part(part: Part | Reference) -> Any:
    if isinstance(part, Reference):
        return astuple(part)
    view = memoryview(part)
    return bytes(view) if view.nbytes < _LARGE else to_serialize(view)
