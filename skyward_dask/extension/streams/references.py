"""Large items in shared memory go to a reader of the same machine by reference, who copies them once.

```
 host: References                             reader: Neighbour
   tell    ── Shared: where a segment is ──▶  opens it, if it is on this machine
   hear    ◀── Opened ──────────────────────
   tell    ── Items, with References ──────▶  copies what is taken, and then grants it
   hear    ◀── Grant: it isn't needed any more
```

The bytes themselves are sent before the answer, and if there is none.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable

from distributed.protocol.utils import host_array

from skyward_dask.slots.memory.neighbour import open_neighbour, range_of, read_into, whereabouts
from skyward_dask.streams.messages import (
    Grant,
    Item,
    Items,
    Message,
    Opened,
    Packed,
    Part,
    Reference,
    SentItem,
    Shared,
)


class References:
    """The host's end of one reader's connection.

    Parameters
    ----------
    send : callable
        Sends a message to the reader.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._shared: set[int] = set()
        self._opened: set[int] = set()
        self._kept: deque[tuple[int, SentItem]] = deque()  # each with the count of items up to it
        self._sent = self._taken = 0

    def tell(self, message: Message) -> None:
        """Send a message, with references in place of what the reader can read itself."""
        if isinstance(message, Items):
            message = Items([self._referring(item) for item in message.items])
        elif isinstance(message, Packed):
            self._sent += message.count
        self._send(message)

    def _referring(self, item: SentItem) -> SentItem:
        self._sent += 1
        parts = [self._reference(part) for part in item]
        if has_references(parts):
            self._kept.append((self._sent, item))
        return parts

    def _reference(self, part: Part | Reference) -> Part | Reference:
        if not isinstance(part, memoryview) or (found := range_of(part)) is None:
            return part
        segment, start = found[0].segment, found[1]
        if segment.number in self._opened:
            return Reference(segment.number, start, len(part))
        if segment.number not in self._shared:
            self._shared.add(segment.number)
            self._send(Shared(segment.number, whereabouts(segment)))
        return part

    def hear(self, message: Message) -> None:
        """The reader has sent a message."""
        if isinstance(message, Opened):
            self._opened.add(message.segment)
        elif isinstance(message, Grant):
            self._taken += message.items
            while self._kept and self._kept[0][0] <= self._taken:
                self._kept.popleft()

    def close(self) -> None:
        """The connection has ended."""
        self._kept.clear()


class Neighbour:
    """The reader's end: the host's segments that it has opened. Used by one thread at a time.

    Attributes
    ----------
    close : callable
        Closes them.
    """

    def __init__(self) -> None:
        self._segments: dict[int, int] = {}
        self.close = weakref.finalize(self, _close, self._segments)
        self.close.atexit = False

    def open(self, shared: Shared) -> Opened | None:
        """Open a segment; returns what the host is told."""
        fd = open_neighbour(shared.where)
        if fd is None:
            return None
        self._segments[shared.segment] = fd
        return Opened(shared.segment)

    def copied(self, item: SentItem) -> Item:
        """An item, with the bytes in place of references."""
        return [self._bytes(part) if isinstance(part, Reference) else part for part in item]

    def _bytes(self, reference: Reference) -> memoryview:
        buffer: memoryview = host_array(reference.nbytes)
        read_into(self._segments[reference.segment], reference.start, buffer)
        return buffer


def has_references(item: SentItem) -> bool:
    return any(isinstance(part, Reference) for part in item)


def _close(segments: dict[int, int]) -> None:
    while segments:
        os.close(segments.popitem()[1])
