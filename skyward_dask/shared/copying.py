"""What a host sends to its standby: first its home in pieces, then every event, all in one order."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from skyward_dask.shared.events import Event
from skyward_dask.shared.weight import weight

#: About the bytes of one message: sending it takes a few milliseconds.
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Begin:
    """A new copy begins: the home without its entries, as it was after that many events."""

    epoch: int
    index: int
    home: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the home's entries, pickled; the `last` ones or not."""

    epoch: int
    entries: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Append:
    """Events, of which the first has this number."""

    epoch: int
    first: int
    events: list[Event]


Message = Begin | Piece | Append


def pieces(epoch: int, entries: Iterable[Any]) -> Iterator[Piece]:
    """The entries of a snapshot as messages; there is always a last one."""
    gathered, size = list[Any](), 0
    for entry in entries:
        gathered.append(entry)
        size += weight(entry)
        if size >= PIECE:
            yield Piece(epoch, pickle.dumps(gathered, protocol=5), last=False)
            gathered, size = [], 0
    yield Piece(epoch, pickle.dumps(gathered, protocol=5), last=True)
