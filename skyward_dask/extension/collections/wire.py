"""A wire: messages between two processes of a cluster, in order, over one connection of Dask's.

Messages sent while a batch is being written go with the next batch. So a large number of messages costs few
writes, and a single message doesn't wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from distributed.comm.core import Comm

from skyward_dask.extension.collections.call_messages import Message, read, written


class Wire:
    """One end of a wire.

    Parameters
    ----------
    on_message : callable
        Takes the wire and one message.
    on_end : callable
        Takes the wire and the messages that were not sent; called once.

    Notes
    -----
    Used on one event loop only.
    """

    def __init__(
        self,
        on_message: Callable[[Wire, Message], None],
        on_end: Callable[[Wire, list[Message]], None],
    ) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._comm: Comm | None = None
        self._outbox: list[Message] = []
        self._writing: asyncio.Task[None] | None = None

    def send(self, message: Message) -> None:
        self._outbox.append(message)
        if self._comm is not None and self._writing is None:
            self._writing = asyncio.ensure_future(self._write())

    async def connect(self, connect: Callable[[], Awaitable[Comm]]) -> None:
        """Make the connection, and read until it ends."""
        comm: Comm | None = None
        try:
            comm = await connect()
            await comm.write({"op": "skyward_wire", "reply": False})
        except (OSError, RuntimeError, asyncio.CancelledError):  # nobody is there, or we are closing
            if comm is not None:
                comm.abort()
            self._end()
            return
        await self.run(comm)

    async def run(self, comm: Comm) -> None:
        """Read until the connection ends."""
        self._comm = comm
        if self._outbox:
            self._writing = asyncio.ensure_future(self._write())
        try:
            while True:
                for message in await comm.read():
                    self._on_message(self, read(message))
        except (OSError, asyncio.CancelledError):
            pass  # the other end is gone, or this process is closing
        finally:
            comm.abort()
            self._end()

    async def _write(self) -> None:
        assert self._comm is not None
        try:
            while self._outbox:
                batch, self._outbox = self._outbox, []
                await self._comm.write([written(message) for message in batch])
        except OSError:  # the reader notices the end, and reports it
            return
        self._writing = None

    def _end(self) -> None:
        unsent, self._outbox = self._outbox, []
        self._on_end(self, unsent)
