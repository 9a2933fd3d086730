"""A home: where a collection, or one shard of it, lives. It applies events, one after the other.

```
 Call ── apply ──▶ operation of the state ──▶ answer now
                                          └─▶ the call waits ──▶ answer later: by another's call,
                                                                 Withdraw, Forget or Close
```

Each call is answered exactly once. If its caller gives it up (`Withdraw`), the answer says so, or is the
value that was on its way already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from skyward_dask.errors import CollectionConflict, CollectionLost
from skyward_dask.shared.events import (
    Answer,
    Call,
    CallId,
    Close,
    Event,
    Forget,
    Forgotten,
    Took,
    Withdraw,
    Withdrawn,
)
from skyward_dask.shared.kinds import KINDS
from skyward_dask.shared.state import WAITS, operations

_OPERATIONS = {name: operations(kind.state) for name, kind in KINDS.items()}


class Applied(NamedTuple):
    """The effects of an event.

    Attributes
    ----------
    answers : dict
        By the ids of their calls; the home doesn't know where to send them.
    released : list of str
        What callers that have ended still held, in words, for a warning.
    """

    answers: dict[CallId, Answer]
    released: list[str]


class Home:
    """The state of a collection, and the calls that wait.

    Parameters
    ----------
    kind : str
    options : dict
        Arguments of the state's class.

    Notes
    -----
    Not thread-safe. It is plain data, and can be pickled: it has no clock, draws no random numbers and refers
    to nothing outside, so the same events produce the same home.
    """

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        self._kind = kind
        self._state = KINDS[kind].state(**options)
        self._waiting: dict[CallId, Call] = {}
        # in order of arrival: the order of a set would differ between processes
        self._by_owner: dict[tuple[str, str], dict[CallId, Call]] = {}
        self._released: list[str] = []
        self._end: str | None = None
        self._count = 0

    def apply(self, event: Event) -> Applied:
        """Apply the next event."""
        state = self._state
        state.now = event.at
        _APPLY[type(event)](self, event)
        answers, state.answered = state.answered, {}
        released, self._released = self._released, []
        if self._waiting:
            for call_id in answers:
                self._strike_off(call_id)
        return Applied(answers, released)

    def statistics(self) -> dict[str, int]:
        """The numbers of operations carried out, of entries, and of waiting calls."""
        return {"operations": self._count, "size": len(self._state), "waiting": len(self._waiting)}

    def _call(self, call: Call) -> None:
        self._count += 1
        try:
            value = self._carry_out(call)
        except Exception as error:  # its caller sees it
            self._state.fail(call, error)
        else:
            if value is not WAITS:
                self._state.answer(call, value)
            elif call.id not in self._state.answered:
                self._waiting[call.id] = call
                self._by_owner.setdefault(call.caller.owner, {})[call.id] = call

    def _carry_out(self, call: Call) -> object:
        if self._end is not None:
            raise CollectionLost(self._end)
        operation = _OPERATIONS[self._kind].get(call.operation)
        if operation is None:
            raise CollectionConflict(f"a {self._kind} has no operation {call.operation!r}.")
        return operation(self._state, call, *call.arguments)

    def _took(self, event: Took) -> None:
        self._state.took(event.call)

    def _withdraw(self, event: Withdraw) -> None:
        if (call := self._waiting.get(event.call)) is not None:
            self._state.fail(call, Withdrawn(self._state.withdraw(call, event.expired)))
        elif not event.expired:
            self._state.undo(event.call)

    def _forget(self, event: Forget) -> None:
        """Answers on their way to an ended run are not taken back: its worker is alive, and says of each
        whether it arrived (an answer that arrived must not go to another caller)."""
        gone = [calls for owner, calls in self._by_owner.items() if event.concerns(owner)]
        for call in [call for calls in gone for call in calls.values()]:
            left = self._state.withdraw(call, False)
            # a client that has lost its connection may reconnect, and then ask again
            can_ask_again = event.run is None and left is None
            ended = Forgotten() if can_ask_again else CancelledError(f"{call.caller} has ended")
            self._state.fail(call, ended)
        if event.run is None:
            self._state.undo_all(event)
        self._released += self._state.forget(event)

    def _close(self, event: Close) -> None:
        self._end = event.reason
        for call in self._waiting.values():
            self._state.fail(call, CollectionLost(event.reason))

    def _strike_off(self, call_id: CallId) -> None:
        if (call := self._waiting.pop(call_id, None)) is not None:
            calls = self._by_owner[call.caller.owner]
            del calls[call_id]
            if not calls:
                del self._by_owner[call.caller.owner]


_APPLY: dict[type[Event], Callable[[Home, Any], None]] = {
    Call: Home._call,
    Took: Home._took,
    Withdraw: Home._withdraw,
    Forget: Home._forget,
    Close: Home._close,
}
