"""A lock's state: who holds it, who waits in line, and a number that grows with each holder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from time import time

from skyward_dask.errors import LockError
from skyward_dask.shared.calls import WAITS, Caller, Ticket, Waits
from skyward_dask.shared.state import Gone, State


@dataclass(frozen=True, slots=True)
class Held:
    """One acquisition: who, since when (seconds since the epoch), under which number, by which call."""

    caller: Caller
    since: float
    fence: int
    call_id: tuple[str, int]


class LockState(State):
    """A lock: first come, first served.

    Parameters
    ----------
    fence : int
        Numbers of acquisitions are above it.
    """

    def __init__(self, fence: int = 0) -> None:
        self._fence = fence
        self._held: Held | None = None
        self._line: OrderedDict[Ticket, None] = OrderedDict()

    def acquire(self, ticket: Ticket) -> Waits:
        if self._held is None:
            ticket.answer(self._give(ticket))
        else:
            self._line[ticket] = None
        return WAITS

    def acquire_nowait(self, ticket: Ticket) -> int | None:
        """The number of the acquisition; None if somebody has it."""
        return None if self._held or self._line else self._give(ticket)

    def release(self, ticket: Ticket) -> None:
        held = self._held
        if held is None:
            raise LockError(
                "nobody holds the lock: it was released before, or its holder was taken for lost."
            )
        if held.caller.owner != ticket.caller.owner:
            raise LockError(
                f"the lock is held by {held.caller}, and {ticket.caller} can't release it: that is for the "
                "run of the task, the actor or the client that acquired it."
            )
        self._pass_on()

    def holder(self, ticket: Ticket) -> Held | None:
        return self._held

    def fence(self, ticket: Ticket) -> int:
        """The number of the last acquisition."""
        return self._fence

    def _give(self, ticket: Ticket) -> int:
        self._fence += 1
        self._held = Held(ticket.caller, time(), self._fence, ticket.call.id)
        return self._fence

    def _pass_on(self) -> None:
        self._held = None
        if self._line:
            ticket, _ = self._line.popitem(last=False)
            ticket.answer(self._give(ticket))

    def withdraw(self, ticket: Ticket, expired: bool) -> None:
        self._line.pop(ticket, None)

    def undo(self, call_id: tuple[str, int]) -> None:
        if self._held is not None and self._held.call_id == call_id:
            self._pass_on()

    def forget(self, gone: Gone) -> Iterator[str]:
        if self._held is not None and gone(self._held.caller.owner):
            yield f"{self._held.caller} has ended without releasing the lock"
            self._pass_on()

    def __len__(self) -> int:
        return len(self._line)
