"""A barrier's state: who waits until all are there."""

from __future__ import annotations

from collections import OrderedDict

from skyward_dask.errors import BrokenBarrierError
from skyward_dask.shared.calls import WAITS, Ticket, Waits
from skyward_dask.shared.state import State


class BarrierState(State):
    """A barrier of so many parties.

    Parameters
    ----------
    parties : int
    """

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self._broken = False

    def wait(self, ticket: Ticket) -> Waits:
        if self._broken:
            raise _broken()
        self._waiting[ticket] = None
        if len(self._waiting) == self._parties:
            arrived, self._waiting = self._waiting, OrderedDict()
            for index, each in enumerate(arrived):
                each.answer(index)
        return WAITS

    def n_waiting(self, ticket: Ticket) -> int:
        return len(self._waiting)

    def parties(self, ticket: Ticket) -> int:
        return self._parties

    def broken(self, ticket: Ticket) -> bool:
        return self._broken

    def abort(self, ticket: Ticket) -> None:
        self._break()

    def reset(self, ticket: Ticket) -> None:
        self._break()
        self._broken = False

    def _break(self) -> None:
        self._broken = True
        waiting, self._waiting = self._waiting, OrderedDict()
        for ticket in waiting:
            ticket.fail(_broken())

    def withdraw(self, ticket: Ticket, expired: bool) -> None:
        # one that is gone leaves its place to another; one whose time is over breaks it, as threading's does
        self._waiting.pop(ticket, None)
        if expired:
            self._break()

    def __len__(self) -> int:
        return len(self._waiting)


def _broken() -> BrokenBarrierError:
    return BrokenBarrierError(
        "the barrier is broken: a party's time-out was over, or somebody called abort() or reset(). After "
        "reset() it can be used again."
    )
