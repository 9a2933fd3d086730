"""The streams whose generators this process has, and the connections of their readers.

```
 producer ── produced, holding, ended ──▶ Hosted ── Life ──▶ Tell ──▶ a reader's wire, or a reader here
          ◀── start, allow, stop ──────────                      ◀── Attach, Granted, Leave
```
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distributed.comm.core import Comm
from distributed.core import Status

from skyward_dask.extension.streams.reading import Line, OnEnd, OnMessage
from skyward_dask.extension.streams.references import References
from skyward_dask.extension.streams.wire import Wire
from skyward_dask.streams.credit import Window
from skyward_dask.streams.life import (
    Allow,
    Attach,
    Close,
    Command,
    End,
    Event,
    Granted,
    Holding,
    Leave,
    Life,
    Produced,
    Start,
    State,
    Stop,
    Tell,
)
from skyward_dask.streams.messages import (
    Broken,
    Grant,
    Held,
    Item,
    Items,
    Message,
    Outcome,
    Packed,
    Part,
    size_of,
)

#: The window of whoever doesn't read yet, but will.
HOLD = (0, 0)


class Producer(Protocol):
    """What has a generator and steps it. Used on the loop of its host."""

    def start(self, window: Window) -> None:
        """Begin: there is a reader."""

    def allow(self, grant: Grant) -> None:
        """The reader has taken items."""

    def stop(self) -> None:
        """Close the generator, and report the end, now or later; it may not have begun."""


@dataclass(slots=True)
class Traffic:
    """What the streams of a process have sent so far."""

    items: int = 0
    nbytes: int = 0


class Hosted:
    """One stream. Used on one event loop only.

    Parameters
    ----------
    on_over : callable
        Called with the stream when it is over.
    traffic : Traffic
        Counts what it sends.

    Attributes
    ----------
    producer : Producer or None
        None when the stream is over.
    holders : set
        Streams that will read this one keep it open, though nobody wants its key any more.
    unwanted : str
        Why it closes when nobody holds it; empty as long as somebody wants its key.
    """

    def __init__(self, on_over: Callable[[Hosted], object], traffic: Traffic) -> None:
        self.producer: Producer | None = None
        self._traffic = traffic
        self._life = Life()
        self._on_over = on_over
        self._events: deque[Event] = deque()
        self.holders: set[object] = set()
        self.unwanted = ""

    def close_unless_held(self) -> None:
        """If nobody wants its key, and no stream holds it, it closes."""
        if self.unwanted and not self.holders:
            self.apply(Close(self.unwanted))

    @property
    def state(self) -> State:
        return self._life.state

    def apply(self, event: Event) -> None:
        """Apply an event, and carry out what follows; what that leads to comes after it."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            try:
                for command in self._life.apply(self._events[0]):
                    self._carry_out(command)
            finally:
                self._events.popleft()
        if self.producer is not None and self.state is State.OVER:
            self.producer = None
            self._on_over(self)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Tell(reader, message):
                reader(message)  # type: ignore[operator]  # each reader is known by what takes its messages
            case _ if self.producer is None:
                pass
            case Start(window):
                self.producer.start(window)
            case Allow(grant):
                self.producer.allow(grant)
            case Stop():
                self.producer.stop()

    # --- what the producer reports -------------------------------------------------------------------------

    def produced(self, items: Sequence[Item]) -> None:
        self._traffic.items += len(items)
        self._traffic.nbytes += sum(map(size_of, items))
        self.apply(Produced(Items(items)))

    def produced_packed(self, count: int, block: Part) -> None:
        self._traffic.items += count
        self._traffic.nbytes += len(block)
        self.apply(Produced(Packed(count, block)))

    def holding(self) -> None:
        self.apply(Holding())

    def ended(self, outcome: Outcome) -> None:
        self.apply(End(outcome))


class Hosts:
    """The streams of one process, by their ids. Used on its loop only."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self._streams: dict[str, Hosted] = {}

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def open(self) -> int:
        """How many of them aren't over."""
        return sum(hosted.state is not State.OVER for hosted in self._streams.values())

    def add(self, stream: str, hosted: Hosted) -> None:
        self._streams[stream] = hosted

    def remove(self, stream: str) -> None:
        self._streams.pop(stream, None)

    def close(self, stream: str, reason: str) -> None:
        """Nobody wants the key of the stream any more."""
        if (hosted := self._streams.get(stream)) is not None:
            hosted.unwanted = reason
            hosted.close_unless_held()
            if hosted.state is State.OVER:
                self.remove(stream)

    def hold(self, stream: str, holder: object) -> Callable[[], None]:
        """Have a stream stay open though nobody wants its key; returns what ends that."""
        hosted = self._streams.get(stream)
        if hosted is None:
            return lambda: None

        def release() -> None:
            hosted.holders.discard(holder)
            hosted.close_unless_held()

        hosted.holders.add(holder)
        return release

    def close_unread(self, stream: str) -> None:
        """Somebody has closed the stream: if nobody reads it, it ends."""
        hosted = self._streams.get(stream)
        if hosted is not None and hosted.state is State.OPEN:
            hosted.apply(Close("it was closed."))

    async def accept(self, comm: Comm, stream: str, window: Sequence[int] | None, **_: Any) -> Status:
        """Dask's handler of a reader's connection, which is ours from here on."""
        if window is None:
            comm.abort()
            self.close_unread(stream)
            return Status.dont_reply
        line: Line

        def hear(message: Message) -> None:
            references.hear(message)
            line.send(message)

        def end() -> None:
            references.close()
            line.close()

        wire = Wire(hear, end)
        references = References(wire.send)
        if tuple(window) == HOLD:
            line = _Hold(self.hold(stream, wire))
            wire.send(Held())  # so the holder knows that it does
        else:
            line = self.attach(stream, Window(*window), references.tell)
        await wire.run(comm)
        return Status.dont_reply

    def attach(self, stream: str, window: Window, on_message: OnMessage) -> Line:
        """Have a reader attach; what it sends goes to the line that is returned."""
        hosted = self._streams.get(stream)
        if hosted is None:
            on_message(Broken("its host doesn't know it (any more): the host may have been restarted."))
            return _Line(None, on_message)
        hosted.apply(Attach(on_message, window))
        return _Line(hosted, on_message)

    def attach_here(self, stream: str, window: Window, on_message: OnMessage, on_end: OnEnd) -> Line:
        """The same, for a reader in this process: it is told in later turns of the loop."""
        loop = asyncio.get_running_loop()

        def later(message: Message) -> None:
            loop.call_soon(on_message, message)

        return self.attach(stream, window, later)

    def end(self, reason: str) -> None:
        """This process leaves: close all streams."""
        for hosted in list(self._streams.values()):
            hosted.apply(Close(reason))


class _Line:
    """A reader's messages to a stream."""

    def __init__(self, hosted: Hosted | None, reader: OnMessage) -> None:
        self._hosted, self._reader = hosted, reader

    def send(self, message: Message) -> None:
        if isinstance(message, Grant) and self._hosted is not None:
            self._hosted.apply(Granted(self._reader, message))

    def close(self) -> None:
        if self._hosted is not None:
            self._hosted.apply(Leave(self._reader))


class _Hold:
    """The connection of a stream that will read another."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.close = release

    def send(self, message: Message) -> None:
        """Do nothing: it says nothing."""
