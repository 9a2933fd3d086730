"""What the task of a process slot reads: its worker has the reader's end, and sends on what has arrived.

A task that waits for an item holds no slot: whoever produces the item may need it.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from skyward_dask.extension.streams.places import Ticket
from skyward_dask.extension.streams.reading import PATIENCE, Line
from skyward_dask.extension.streams.references import Neighbour, has_references
from skyward_dask.extension.worker.child_stream import Rest
from skyward_dask.extension.worker.streams import WorkerStreams
from skyward_dask.settings import stream_window
from skyward_dask.slots.pickling import as_buffer
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.runs import Run
from skyward_dask.streams.inbox import Inbox
from skyward_dask.streams.messages import (
    Broken,
    Grant,
    Held,
    Item,
    Items,
    Message,
    Opened,
    Packed,
    Part,
    Shared,
)

#: Bytes from which a part of an item is sent as a part of its own, without being copied.
_LARGE = 16 * 1024


class ChildReadings:
    """What one run reads, by number. Used on the worker's loop only."""

    def __init__(self, streams: WorkerStreams) -> None:
        self._streams = streams
        self._readings: dict[int, _Reading] = {}

    def read(self, pool: Pool, run: Run, number: int, ticket: Ticket, may_rest: bool) -> Any:
        """Wait for items, or for the end: the answer has both."""
        if (reading := self._readings.get(number)) is None:
            reading = self._readings[number] = _Reading(self._streams, ticket)
        return reading.read(Rest(pool, run, PATIENCE if may_rest else None))

    def close(self, number: int, ticket: Ticket | None) -> None:
        """Read no more; or close a stream that was never read."""
        if ticket is not None:
            self._streams.close_unread(ticket)
        elif (reading := self._readings.pop(number, None)) is not None:
            reading.end()

    def end(self) -> None:
        """The run is over."""
        while self._readings:
            self._readings.popitem()[1].end()


class _Reading:
    def __init__(self, streams: WorkerStreams, ticket: Ticket) -> None:
        self._inbox = Inbox(stream_window())
        self._neighbour = Neighbour()
        self._lost = ticket.lost
        self._rest: Rest | None = None
        self._owed: list[Grant] = []  # for items that the task may not have taken yet
        self._line: Line | None = None
        self._line = streams.connect(ticket)(self._inbox.window, self._message, self._ended)
        if self._inbox.last is not None:
            self._hang_up()

    def read(self, rest: Rest) -> Any:
        """The task has taken all that it was sent, and wants more."""
        self._rest = rest
        while self._owed:
            self._grant(self._owed.pop(0))
        self._answer()
        return rest.answer

    def _message(self, message: Message) -> None:
        match message:
            case Items() | Packed():
                self._inbox.put(message)
            case Held():
                self._owe(self._inbox.hold())
                if self._rest is not None:
                    self.read(self._rest)
            case Shared() if self._line is not None and (opened := self._neighbour.open(message)):
                self._line.send(opened)
            case Grant() | Shared() | Opened():
                pass
            case _:
                self._inbox.settle(self._neighbour.copied)
                self._inbox.end(message)
                self._hang_up()
        self._answer()

    def _ended(self) -> None:
        self._inbox.drop(has_references)  # the host may use the memory again
        self._message(Broken(self._lost))

    def _answer(self) -> None:
        """Give the task what there is, if it waits."""
        if self._rest is None or not (len(self._inbox) or self._inbox.last is not None):
            return
        rest, self._rest = self._rest, None
        items: list[Sequence[Part | pickle.PickleBuffer]] = []
        # half of the window is with the task, and the other half on its way
        while len(self._inbox) and len(items) < max(1, self._inbox.window.items // 2):
            sent, grant = self._inbox.take()
            items.append(_sendable(self._neighbour.copied(sent)))
            self._owe(grant)
        rest.end((items, None if len(self._inbox) else self._inbox.last))

    def _owe(self, grant: Grant | None) -> None:
        if grant is not None:
            self._owed.append(grant)

    def _grant(self, grant: Grant) -> None:
        if self._line is not None:
            self._line.send(grant)

    def end(self) -> None:
        self._inbox.drop()
        self._message(Broken("it was closed."))

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
        self._neighbour.close()


def _sendable(item: Item) -> list[Part | pickle.PickleBuffer]:
    return [as_buffer(part) if _is_large(part) else bytes(part) for part in item]


def _is_large(part: Part) -> bool:
    return memoryview(part).nbytes >= _LARGE
