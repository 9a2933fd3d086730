"""The messages between a stream's reader and the process that has its generator.

```
 reader                                   host
   opens the connection, with its window ▶
   Grant ───────────────────────────────▶
         ◀───────────────────────────────  Items, Packed
         ◀───────────────────────────────  Held: an item is ready, and too large for what was granted
         ◀───────────────────────────────  Shared: items are in memory that the reader may be able to open
   Opened ──────────────────────────────▶  from now on, such items come as references
         ◀───────────────────────────────  Returned, Raised, Broken or Taken: the last message
```

A reader closes a stream by closing the connection. Items, values and exceptions are pickled, and only
unpickled by the reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Part = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Reference:
    """A part that is in the host's shared memory: its segment, and where it is there, in bytes."""

    segment: int
    start: int
    nbytes: int


#: A pickled item: a stream of pickle's, and its out-of-band buffers.
Item = Sequence[Part]
#: An item as it is sent.
SentItem = Sequence[Part | Reference]


@dataclass(frozen=True, slots=True)
class Items:
    """The next items of the stream."""

    items: Sequence[SentItem]


@dataclass(frozen=True, slots=True)
class Packed:
    """The next items of the stream, all small: so many, as `skyward_dask.slots.packing` packs them."""

    count: int
    block: Part


@dataclass(frozen=True, slots=True)
class Grant:
    """The reader has taken that many items and bytes."""

    items: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Shared:
    """Items may be in this segment of the host's shared memory: where readers of its machine find it."""

    segment: int
    where: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """The reader has opened the segment."""

    segment: int


@dataclass(frozen=True, slots=True)
class Held:
    """An item waits until the reader has granted all that it has taken."""


@dataclass(frozen=True, slots=True)
class Returned:
    """The generator has ended, and has returned this pickled value."""

    value: Item


@dataclass(frozen=True, slots=True)
class Raised:
    """The generator has raised this pickled exception."""

    error: Item


@dataclass(frozen=True, slots=True)
class Broken:
    """The stream has no further items, for this reason, which is neither its end nor an error of its own."""

    reason: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The stream has, or had, another reader."""


#: How a stream ends.
Outcome = Returned | Raised | Broken
Last = Outcome | Taken
Message = Items | Packed | Grant | Held | Shared | Opened | Last


def size_of(item: SentItem) -> int:
    """The size of a pickled item, in bytes."""
    return sum(len(part) if isinstance(part, bytes | bytearray) else part.nbytes for part in item)
