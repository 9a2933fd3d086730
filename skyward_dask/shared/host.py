"""A host: a home whose events go to a standby, and whose answers wait until the standby has confirmed them.

```
            Fill                 last piece confirmed          granted
  alone ──────────▶ filling ─────────────────────────▶ joining ────────▶ in step
    ▲ ◀─ lost ─────────┘                                  │ lost            │ lost
    │                 Fill                                ▼                 ▼
    └───────────────────────────────────────────────────── parting ◀────────┘
                             refused, or fenced, in any state: ──▶ deposed
                GiveWay, in step: ──▶ giving way ── all confirmed ──▶ deposed, and a standby
```

A standby that is to be replaced stays until its successor is in step: for that time there are two lanes.
The host decides nothing: the directory does (docs/internals.md).
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Generic, TypeVar

from skyward_dask.shared.copying import Message
from skyward_dask.shared.events import Event
from skyward_dask.shared.home import Applied, Home
from skyward_dask.shared.lane import Lane

T = TypeVar("T")


class Role(Enum):
    """What a host does about its standby."""

    ALONE = "alone"
    FILLING = "filling"
    JOINING = "joining"
    IN_STEP = "in step"
    GIVING_WAY = "giving way"
    PARTING = "parting"
    DEPOSED = "deposed"


class Host(Generic[T]):
    """A home and its log.

    Parameters
    ----------
    home : Home
    epoch : int
        The epoch in which it became the host.
    standby, chosen : str, int
        The standby that has all of the home already, if there is one, and the epoch in which it was chosen.

    Attributes
    ----------
    gives_way, is_deposed : bool
        Whether another is about to be the host, and nothing new is taken from callers; whether it is.

    Notes
    -----
    Not thread-safe. Whoever has something to tell asks `holds`, and otherwise leaves it with `hold`.
    """

    def __init__(self, home: Home, epoch: int, standby: str = "", chosen: int = 0) -> None:
        self.home, self.epoch = home, epoch
        self._index = 0  # of the last event that was applied
        self._held: deque[tuple[int, T]] = deque()
        # to the standby, and to its successor, if it is to be replaced
        self._lanes = [Lane(chosen, standby, self._index, None)] if standby else []
        self._parts = self.gives_way = self.is_deposed = False

    @property
    def role(self) -> Role:
        if self._parts or self.is_deposed:
            return Role.DEPOSED if self.is_deposed else Role.PARTING
        if not self._lanes:
            return Role.ALONE
        if self.gives_way:
            return Role.GIVING_WAY
        standby = self._lanes[0]
        if standby.is_complete:
            return Role.IN_STEP if standby.is_in_step else Role.JOINING
        return Role.FILLING

    # --- events ------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> Applied:
        """Apply the next event, and have it sent."""
        applied = self.home.apply(event)
        self._index += 1
        for lane in self._lanes:
            lane.add(event)
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
        if self._parts or self.is_deposed:
            return -1
        return min((lane.told for lane in self._lanes), default=self._index)

    # --- standbys ----------------------------------------------------------------------------------------

    def fill(self, epoch: int, standby: str, kept: int = 0) -> bool:
        """Go on alone from this epoch; or, unless `standby` is empty, bring that one in step.

        The standby of the epoch `kept` is in step, and stays until then. Returns False if the host has heard
        of a later decision.
        """
        if self.is_deposed or epoch <= self.epoch:
            return False
        self.epoch, self.gives_way = epoch, False
        self._lanes = [lane for lane in self._lanes if lane.epoch == kept]
        self._parts = bool(kept) and not self._lanes  # it is lost, as the directory is about to hear
        if standby:
            self._lanes.append(Lane(epoch, standby, self._index, self.home))
        return True

    def lane(self, epoch: int) -> Lane | None:
        """The lane to the standby that was chosen in this epoch, if there is one still."""
        return next((lane for lane in self._lanes if lane.epoch == epoch), None)

    def can_send(self) -> bool:
        """Whether a standby may get another message now, and not only when it has confirmed one."""
        return any(lane.can_send() for lane in self._lanes)

    def next(self) -> tuple[str, Message] | None:
        """The next message to a standby, and where that is; None if none may be sent now."""
        for lane in self._lanes:
            if (message := lane.next()) is not None:
                return lane.standby, message
        return None

    def confirmed(self, epoch: int) -> bool:
        """A standby has taken the oldest message under way; returns whether it is in step with that."""
        lane = self.lane(epoch)
        return lane is not None and lane.confirm()

    def granted(self, epoch: int) -> None:
        """The directory knows that this standby is in step, and has let go of the one before."""
        if epoch == self.epoch and (lane := self.lane(epoch)) is not None and lane.is_complete:
            self._lanes, self._parts, lane.is_in_step = [lane], False, True

    def part(self, epoch: int) -> bool:
        """The standby of that epoch is lost: answer nobody until the directory has decided.

        One that was never in step isn't waited for. Returns whether that is news.
        """
        if (lane := self.lane(epoch)) is None:
            return False
        self._lanes.remove(lane)
        self._parts, self.gives_way = self._parts or lane.is_complete, False
        return True

    def give_way(self, epoch: int, chosen: int) -> bool:
        """Take nothing more from callers, until the standby of the epoch `chosen`, which is in step, has all.

        Returns False if that one is lost, or the host has heard of a later decision.
        """
        if self.gives_way and epoch == self.epoch:
            return True
        lane = self.lane(chosen)
        if self._parts or self.is_deposed or epoch <= self.epoch or lane is None or not lane.is_complete:
            return False
        self.epoch, self._lanes, self.gives_way = epoch, [lane], True
        lane.is_in_step = True
        return True

    def finish_giving_way(self, epoch: int) -> bool:
        """Give way if the standby has all, and nothing was decided since; otherwise go on. Returns which."""
        self.gives_way = self.gives_way and epoch == self.epoch and not self.holds()
        return self.gives_way

    def depose(self) -> list[T]:
        """Another is the host: returns what must not be told any more."""
        self.is_deposed = True
        self._lanes.clear()
        held = [what for _, what in self._held]
        self._held.clear()
        return held
