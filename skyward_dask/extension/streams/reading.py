"""A reader's end of a stream in a process whose event loop runs in a thread: a client's, or a worker's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from tornado.ioloop import IOLoop

from skyward_dask.errors import OperatorError
from skyward_dask.extension.streams.references import Neighbour, has_references
from skyward_dask.streams.credit import Window
from skyward_dask.streams.inbox import Inbox
from skyward_dask.streams.messages import (
    Broken,
    Grant,
    Held,
    Item,
    Items,
    Last,
    Message,
    Opened,
    Packed,
    Shared,
)

#: Seconds that a task may wait for an item in its slot: less than it takes to start another child.
PATIENCE = 0.02


class Line(Protocol):
    """A connection to the host of a stream."""

    def send(self, message: Message) -> None: ...
    def close(self) -> None: ...


OnMessage = Callable[[Message], None]
OnEnd = Callable[[], None]
#: Connects a reader, on its loop: takes its window, and what takes messages and the connection's end.
Connect = Callable[[Window, OnMessage, OnEnd], Line]


class LoopReading:
    """Reads over a connection of the loop's.

    Parameters
    ----------
    loop : IOLoop
    window : Window
    connect : callable
    resting : callable
        Makes a context in which the calling thread waits without its slot.
    lost : str
        What has happened if the connection ends.

    Notes
    -----
    Thread-safe.
    """

    def __init__(
        self,
        loop: IOLoop,
        window: Window,
        connect: Connect,
        resting: Callable[[], AbstractContextManager[object]],
        lost: str,
    ) -> None:
        self._loop, self._resting, self._lost = loop, resting, lost
        self._inbox = Inbox(window)
        self._changed = threading.Condition()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._line: Line | None = None
        self._neighbour = Neighbour()
        self._on_loop(self._begin, connect)

    # --- in any thread -------------------------------------------------------------------------------------

    def take(self) -> Item | Last:
        self._refuse_on_loop()
        while True:
            with self._changed:
                if self._changed.wait_for(self._is_ready, PATIENCE):
                    return self._next()
            with self._resting(), self._changed:  # whoever produces the item may need the slot
                self._changed.wait_for(self._is_ready)

    def _refuse_on_loop(self) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            return
        if here is self._loop.asyncio_loop:  # type: ignore[attr-defined]
            raise OperatorError(
                "reading this stream waits, and would block the event loop of this thread, which has to "
                "deliver the items: use `async for`."
            )

    async def take_async(self) -> Item | Last:
        while True:
            with self._changed:
                if self._is_ready():
                    return self._next()
                loop = asyncio.get_running_loop()
                waiting: asyncio.Future[None] = loop.create_future()
                self._waiting.append((loop, waiting))
            await waiting

    def _is_ready(self) -> bool:
        return len(self._inbox) > 0 or self._inbox.last is not None

    def _next(self) -> Item | Last:
        if not len(self._inbox):
            assert self._inbox.last is not None
            return self._inbox.last
        sent, grant = self._inbox.take()
        item = self._neighbour.copied(sent)  # before it is granted: then the host may use the memory again
        if grant is not None:
            self._on_loop(self._send, grant)
        return item

    def close(self) -> None:
        self.abandon("it was closed.")

    def abandon(self, reason: str) -> None:
        """Read no more, for this reason; from any thread, and from finalizers."""
        with suppress(RuntimeError):  # the loop has ended, and all its connections with it
            self._loop.add_callback(self.end, Broken(reason))

    def _on_loop(self, function: Callable[..., object], *args: object) -> None:
        self._loop.add_callback(function, *args)

    # --- on the loop ---------------------------------------------------------------------------------------

    def _begin(self, connect: Connect) -> None:
        if self._inbox.last is None:  # otherwise it was closed before
            self._line = connect(self._inbox.window, self._message, self._ended)

    def _send(self, message: Message) -> None:
        if self._line is not None:
            self._line.send(message)

    def _message(self, message: Message) -> None:
        reply: Message | None = None
        with self._changed:
            match message:
                case Items() | Packed():
                    if self._inbox.last is None:
                        self._inbox.put(message)
                case Held():
                    reply = self._inbox.hold()
                case Shared() if self._inbox.last is None:
                    reply = self._neighbour.open(message)
                case Grant() | Shared() | Opened():
                    pass
                case _:
                    self._inbox.settle(self._neighbour.copied)
                    self._inbox.end(message)
            self._tell()
        if reply is not None:
            self._send(reply)
        if self._inbox.last is not None:
            self._hang_up()

    def _ended(self) -> None:
        """The connection has ended: the host may use its memory again."""
        with self._changed:
            self._inbox.drop(has_references)
        self._message(Broken(self._lost))

    def end(self, last: Last) -> None:
        """The reader doesn't read any more: drop what it has, and tell the host."""
        with self._changed:
            self._inbox.drop()
            self._inbox.end(last)
            self._tell()
        self._hang_up()

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
        self._neighbour.close()

    def _tell(self) -> None:
        self._changed.notify_all()
        waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            with suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
