"""A host: a home whose events go to a standby, and whose answers wait until the standby has confirmed them.

```
            Fill                 last piece confirmed          granted
  alone ──────────▶ filling ─────────────────────────▶ joining ────────▶ in step
    ▲ ◀─ lost ─────────┘                                  │ lost            │ lost
    │                 Fill                                ▼                 ▼
    └───────────────────────────────────────────────────── parting ◀────────┘
                             refused, or fenced, in any state: ──▶ deposed
```

It decides nothing: the directory does (docs/internals.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Any, Generic, TypeVar

from skyward_dask.shared.copying import PIECE, Append, Begin, Message, Piece, pieces
from skyward_dask.shared.events import Event
from skyward_dask.shared.home import Applied, Home
from skyward_dask.shared.weight import weight

T = TypeVar("T")

#: Pieces of a copy under way at a time: while they travel, the next is made. Of events, there is one message
#: under way, for which others gather: a message costs as much time as a hundred events.
_UNDER_WAY = 4
#: Bytes that may wait to be sent while a standby is filled, before answers wait, too: a second's worth.
_BEHIND = 64 * PIECE


class Role(Enum):
    """What a host does about its standby."""

    ALONE = "alone"
    FILLING = "filling"
    JOINING = "joining"
    IN_STEP = "in step"
    PARTING = "parting"
    DEPOSED = "deposed"


class Host(Generic[T]):
    """A home and its log.

    Parameters
    ----------
    home : Home
    epoch : int
        The epoch in which it became the host.

    Attributes
    ----------
    role : Role
    standby : str
        Where events are sent; empty if they aren't.

    Notes
    -----
    Not thread-safe. Whoever has something to tell asks `holds`, and otherwise leaves it with `hold`.
    """

    def __init__(self, home: Home, epoch: int) -> None:
        self.home, self.epoch = home, epoch
        self.role, self.standby = Role.ALONE, ""
        # the numbers of the last event that was applied, and of the last one that both copies have
        self._index = self._confirmed = 0
        self._held: deque[tuple[int, T]] = deque()
        self._outbox: deque[Event] = deque()
        self._behind = 0
        self._pieces: Iterator[Piece] | None = None
        self._under_way: deque[Message] = deque()
        self._begin: Begin | None = None
        self._joins_at: int | None = None  # when the standby has this event, too, it is in step

    # --- events ------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> Applied:
        """Apply the next event, and have it sent."""
        applied = self.home.apply(event)
        self._index += 1
        if self.standby:
            self._outbox.append(event)
            self._behind += weight(event)
        return applied

    def holds(self) -> bool:
        """Whether what has happened so far must not be told yet."""
        return self._told() < self._index

    def hold(self, what: T) -> None:
        """Keep something until everything that has happened so far can be told."""
        self._held.append((self._index, what))

    def released(self) -> list[T]:
        """What can be told now, in order."""
        upto, found = self._told(), list[T]()
        while self._held and self._held[0][0] <= upto:
            found.append(self._held.popleft()[1])
        return found

    def _told(self) -> int:
        """The last event that may be told."""
        if self.role is Role.FILLING and self._behind > _BEHIND:
            return self._index - len(self._outbox)
        if self.role in (Role.ALONE, Role.FILLING):
            return self._index
        return self._confirmed if self.role in (Role.JOINING, Role.IN_STEP) else -1

    # --- the standby -------------------------------------------------------------------------------------

    def fill(self, epoch: int, standby: str) -> bool:
        """Go on alone from this epoch; or, unless `standby` is empty, bring that one in step.

        Returns False if the host has heard of a later decision.
        """
        if self.role is Role.DEPOSED or epoch <= self.epoch:
            return False
        self.epoch, self.standby = epoch, standby
        self._stop_sending()
        self.role = Role.FILLING if standby else Role.ALONE
        if standby:
            home, entries = self.home.snapshot()
            self._begin, self._pieces = Begin(epoch, self._index, home), pieces(epoch, entries)
        return True

    def can_send(self) -> bool:
        """Whether the standby may get another message now, and not only when it has confirmed one."""
        most = 1 if self.role in (Role.JOINING, Role.IN_STEP) else _UNDER_WAY
        return bool(self.standby) and len(self._under_way) < most

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
            event = self._outbox.popleft()
            events.append(event)
            size += weight(event)
        self._behind -= size
        return Append(self.epoch, first, events)

    def confirmed(self, epoch: int) -> bool:
        """The standby has taken the oldest message under way; returns whether it is in step with that."""
        if epoch != self.epoch or not self._under_way:
            return False
        match self._under_way.popleft():
            case Begin(index=index):
                self._confirmed = index
            case Append(first=first, events=events):
                self._confirmed = first + len(events) - 1
            case Piece(last=True):  # whatever is told from here on, the standby has
                self.role, self._joins_at = Role.JOINING, self._index
        if self._joins_at is None or self._confirmed < self._joins_at:
            return False
        self._joins_at = None
        return True

    def granted(self, epoch: int) -> None:
        """The directory knows that the standby is in step."""
        if epoch == self.epoch and self.role is Role.JOINING:
            self.role = Role.IN_STEP

    def part(self) -> None:
        """The standby is lost: answer nobody until the directory has decided.

        One that was never in step isn't waited for.
        """
        was_filling = self.role is Role.FILLING
        if self.role in (Role.FILLING, Role.JOINING, Role.IN_STEP):
            self.role = Role.ALONE if was_filling else Role.PARTING
            self.standby = ""
            self._stop_sending()

    def depose(self) -> list[T]:
        """Another is the host: returns what must not be told any more."""
        self.role, self.standby = Role.DEPOSED, ""
        self._stop_sending()
        held = [what for _, what in self._held]
        self._held.clear()
        return held

    def _stop_sending(self) -> None:
        self._outbox.clear()
        self._under_way.clear()
        self._behind, self._begin, self._pieces, self._joins_at = 0, None, None, None

    def statistics(self) -> dict[str, Any]:
        return {"role": self.role.value, "standby": self.standby, "index": self._index}
