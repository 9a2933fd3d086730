"""A barrier's state: the callers that wait until all parties have arrived."""

from __future__ import annotations

from collections import OrderedDict

from skyward_dask.errors import BrokenBarrierError
from skyward_dask.shared.events import Call, CallId
from skyward_dask.shared.state import WAITS, State, Waits


class BarrierState(State):
    """A barrier for a fixed number of parties."""

    reads = frozenset({"n_waiting", "parties", "broken"})

    def __init__(self, parties: int) -> None:
        super().__init__()
        self._parties = parties
        self._waiting: OrderedDict[CallId, Call] = OrderedDict()
        self._broken = False

    def wait(self, call: Call) -> Waits:
        if self._broken:
            raise _broken()
        self._waiting[call.id] = call
        if len(self._waiting) == self._parties:
            arrived, self._waiting = self._waiting, OrderedDict()
            for index, each in enumerate(arrived.values()):
                self.answer(each, index)
        return WAITS

    def n_waiting(self, call: Call) -> int:
        return len(self._waiting)

    def parties(self, call: Call) -> int:
        return self._parties

    def broken(self, call: Call) -> bool:
        return self._broken

    def abort(self, call: Call) -> None:
        self._break()

    def reset(self, call: Call) -> None:
        self._break()
        self._broken = False

    def _break(self) -> None:
        self._broken = True
        waiting, self._waiting = self._waiting, OrderedDict()
        for call in waiting.values():
            self.fail(call, _broken())

    def withdraw(self, call: Call, expired: bool) -> None:
        # a lost caller leaves its place to another; one that timed out breaks the barrier, as in threading
        self._waiting.pop(call.id, None)
        if expired:
            self._break()

    def __len__(self) -> int:
        return len(self._waiting)


def _broken() -> BrokenBarrierError:
    return BrokenBarrierError(
        "the barrier is broken: a party timed out, or somebody called abort() or reset(). After reset() it "
        "can be used again."
    )
