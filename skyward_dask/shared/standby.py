"""A standby: the copy of a home that follows its host, and takes over when the directory says so."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from skyward_dask.shared.copying import Append, Begin, Message, Piece
from skyward_dask.shared.events import Event
from skyward_dask.shared.home import Home
from skyward_dask.shared.weight import weight


class Standby:
    """The copy of a home.

    Parameters
    ----------
    home : Home
    epoch : int
        The epoch in which it was chosen.
    index : int
        The number of the last event that the home has applied.
    is_complete : bool
        Whether that is the whole home, and no pieces follow.

    Notes
    -----
    Not thread-safe. It takes the messages of one epoch, in the order in which they were sent, and refuses all
    others: so a host that has been deposed can't get anything confirmed.
    """

    def __init__(self, home: Home, epoch: int, index: int = 0, is_complete: bool = True) -> None:
        self.epoch = epoch
        self._home, self._index = home, index
        # events that came before all pieces had: None when they have
        self._later: list[Event] | None = None if is_complete else []
        self._late = 0  # about their bytes

    @classmethod
    def begin(cls, begin: Begin) -> Standby:
        """The standby that the host's first message makes."""
        return cls(pickle.loads(begin.home), begin.epoch, begin.index, is_complete=False)

    @property
    def is_complete(self) -> bool:
        """Whether it has the whole home."""
        return self._later is None

    @property
    def nbytes(self) -> int:
        """About how many bytes it has, without those that are to come."""
        return self._home.nbytes + self._late

    def take(self, message: Message) -> bool:
        """Take the next message; returns False if it is refused."""
        return message.epoch == self.epoch and _TAKE[type(message)](self, message)

    def _add(self, piece: Piece) -> bool:
        if self._later is None:
            return False
        self._home.add_entries(pickle.loads(piece.entries))
        if piece.last:
            events, self._later, self._late = self._later, None, 0
            self._apply(events)
        return True

    def _append(self, message: Append) -> bool:
        if message.first != self._index + 1:
            return False
        self._index += len(message.events)
        if self._later is None:
            self._apply(message.events)
        else:
            self._later += message.events
            self._late += weight(message.events)
        return True

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            self._home.apply(event)  # what it answers, the host has answered

    def promote(self, epoch: int) -> Home | None:
        """The home, which follows nobody any more; None if it isn't complete, or a later epoch has begun."""
        if not self.is_complete or epoch <= self.epoch:
            return None
        self.epoch = epoch
        return self._home


_TAKE: dict[type[Message], Callable[[Standby, Any], bool]] = {
    Begin: lambda standby, message: False,  # makes another standby
    Piece: Standby._add,
    Append: Standby._append,
}
