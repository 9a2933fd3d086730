"""A lane: what a host sends to one standby, a snapshot and then every event, and what that has confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from skyward_dask.shared.copying import PIECE, Append, Begin, Message, Piece, pieces
from skyward_dask.shared.events import Event
from skyward_dask.shared.home import Home
from skyward_dask.shared.weight import weight

#: Pieces of a copy under way at a time: while they travel, the next is made. Of events, there is one message
#: under way, for which others gather: a message costs as much time as a hundred events.
_UNDER_WAY = 4
#: Bytes that may wait to be sent while a standby is filled, before answers wait, too: a second's worth.
_BEHIND = 64 * PIECE


class Lane:
    """What one standby has, and what it will get.

    Parameters
    ----------
    epoch : int
        The epoch in which it was chosen.
    standby : str
    index : int
        The number of the last event that the home has applied.
    home : Home, optional
        What the standby has to get; None if it has the whole home.

    Attributes
    ----------
    is_complete : bool
        Whether the standby has the whole home.
    is_in_step : bool
        Whether the directory knows that.
    """

    def __init__(self, epoch: int, standby: str, index: int, home: Home | None) -> None:
        self.epoch, self.standby = epoch, standby
        self.is_complete = self.is_in_step = home is None
        self._index = self._confirmed = index
        self._outbox: deque[tuple[Event, int]] = deque()  # with about their bytes
        self._behind = 0
        self._under_way: deque[Message] = deque()
        self._begin: Begin | None = None
        self._pieces: Iterator[Piece] | None = None
        if home is not None:
            light, entries = home.snapshot()
            self._begin, self._pieces = Begin(epoch, index, light), pieces(epoch, entries)
        self._joins_at: int | None = None  # when the standby has this event, too, it is in step

    def add(self, event: Event) -> None:
        """The home has applied another event."""
        size = weight(event)
        self._index += 1
        self._outbox.append((event, size))
        self._behind += size

    @property
    def told(self) -> int:
        """The last event that may be told, as far as this standby is concerned."""
        if self.is_complete:
            return self._confirmed
        return self._index - len(self._outbox) if self._behind > _BEHIND else self._index

    def can_send(self) -> bool:
        """Whether the standby may get another message now, and not only when it has confirmed one."""
        return len(self._under_way) < (1 if self.is_complete else _UNDER_WAY)

    def next(self) -> Message | None:
        """The next message to the standby; None if there is none, or enough are under way."""
        if not self.can_send():
            return None
        if (message := self._begin or self._piece() or self._append()) is not None:
            self._under_way.append(message)
            self._begin = None
        return message

    def _piece(self) -> Piece | None:
        """The next piece of the snapshot, taking turns with events."""
        is_their_turn = self._outbox and self._under_way and isinstance(self._under_way[-1], Piece)
        if self._pieces is None or is_their_turn:
            return None
        piece = next(self._pieces)
        self._pieces = None if piece.last else self._pieces
        return piece

    def _append(self) -> Append | None:
        if not self._outbox:
            return None
        first, events, size = self._index - len(self._outbox) + 1, list[Event](), 0
        while self._outbox and size < PIECE:
            event, its_size = self._outbox.popleft()
            events.append(event)
            size += its_size
        self._behind -= size
        return Append(self.epoch, first, events)

    def confirm(self) -> bool:
        """The standby has taken the oldest message under way; returns whether it is in step with that."""
        if not self._under_way:
            return False
        match self._under_way.popleft():
            case Append(first=first, events=events):
                self._confirmed = first + len(events) - 1
            case Piece(last=True):  # whatever is told from here on, the standby has
                self.is_complete, self._joins_at = True, self._index
        if self._joins_at is None or self._confirmed < self._joins_at:
            return False
        self._joins_at = None
        return True
