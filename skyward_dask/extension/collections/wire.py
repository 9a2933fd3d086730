"""A wire: messages between two processes of a cluster, in order, over one connection of Dask's.

Messages that are sent in the same turn of the loop are one frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from distributed.comm.core import Comm

from skyward_dask.extension.collections.call_messages import Message, read, written
from skyward_dask.extension.collections.frames import Frames, frames_over


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
        self._frames: Frames | None = None
        self._outbox: list[Message] = []
        self._will_flush = False

    def send(self, message: Message) -> None:
        """Send a message, with what else is sent until the loop's next turn."""
        self._outbox.append(message)
        if not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def send_at_once(self, message: Message) -> None:
        """Send a message without waiting for others."""
        self._outbox.append(message)
        self.flush()

    def _flush_now(self) -> None:
        self._will_flush = False
        self.flush()

    def flush(self) -> None:
        """Write what was sent."""
        if self._frames is None or not self._outbox:
            return
        batch, self._outbox = self._outbox, []
        with suppress(OSError):  # the reader notices the end, and reports it
            self._frames.write([written(message) for message in batch])

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
        try:
            self._frames = await frames_over(comm, self._take)
            self.flush()
            await self._frames.run()
        except (OSError, asyncio.CancelledError):
            pass  # the other end is gone, or this process is closing
        finally:
            comm.abort()
            self._end()

    def _take(self, messages: Sequence[Any]) -> None:
        self._will_flush = True  # here: answers to what came together go together
        for message in messages:
            self._on_message(self, read(message))
        self._flush_now()

    def _end(self) -> None:
        unsent, self._outbox = self._outbox, []
        self._on_end(self, unsent)
