"""A lock's state: who holds it, who waits in line, and a number that grows with each holder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from skyward_dask.errors import LockError
from skyward_dask.shared.events import Call, Caller, CallId, Forget
from skyward_dask.shared.state import WAITS, State, Waits


@dataclass(frozen=True, slots=True)
class Held:
    """One acquisition: who, since when (seconds since the epoch), under which number, by which call."""

    caller: Caller
    since: float
    fence: int
    call_id: CallId


class LockState(State):
    """A lock: first come, first served.

    Parameters
    ----------
    fence : int
        The numbers of acquisitions start above it.
    """

    reads = frozenset({"holder", "fence"})

    def __init__(self, fence: int = 0) -> None:
        super().__init__()
        self._fence = fence
        self._held: Held | None = None
        self._line: OrderedDict[CallId, Call] = OrderedDict()

    def acquire(self, call: Call) -> Waits:
        if self._held is None:
            self.answer(call, self._give(call))
        else:
            self._line[call.id] = call
        return WAITS

    def acquire_nowait(self, call: Call) -> int | None:
        """The number of the acquisition; None if the lock is taken."""
        return None if self._held or self._line else self._give(call)

    def release(self, call: Call) -> None:
        held = self._held
        if held is None:
            raise LockError(
                "nobody holds the lock: it was released before, or its holder was considered lost."
            )
        if held.caller.owner != call.caller.owner:
            raise LockError(
                f"the lock is held by {held.caller}, and {call.caller} can't release it: only the task run, "
                "actor or client that acquired it can."
            )
        self._pass_on()

    def holder(self, call: Call) -> Held | None:
        return self._held

    def fence(self, call: Call) -> int:
        """The number of the last acquisition."""
        return self._fence

    def _give(self, call: Call) -> int:
        self._fence += 1
        self._held = Held(call.caller, self.now, self._fence, call.id)
        return self._fence

    def _pass_on(self) -> None:
        self._held = None
        if self._line:
            _, call = self._line.popitem(last=False)
            self.answer(call, self._give(call))

    def withdraw(self, call: Call, expired: bool) -> None:
        self._line.pop(call.id, None)

    def undo(self, call_id: CallId) -> None:
        if self._held is not None and self._held.call_id == call_id:
            self._pass_on()

    def forget(self, gone: Forget) -> Iterator[str]:
        if self._held is not None and gone.concerns(self._held.caller.owner):
            yield f"{self._held.caller} has ended without releasing the lock"
            self._pass_on()

    def owners(self) -> Iterator[tuple[str, str]]:
        if self._held is not None:
            yield self._held.caller.owner

    def __len__(self) -> int:
        return len(self._line)
