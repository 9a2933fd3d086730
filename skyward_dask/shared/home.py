"""A home: where a collection, or one shard of it, lives. It applies events, one after the other.

```
 Call ── apply ──▶ operation of the state ──▶ answer now
                                          └─▶ the call waits ──▶ answer later: by another's call,
                                                                 Withdraw, Forget or Close
```

Each call is carried out once. If its caller gives it up (`Withdraw`), the answer says so, or is the value
that was on its way already. If it comes again, because its answer was lost, it is answered again.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from copy import copy
from dataclasses import dataclass, field
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
from skyward_dask.shared.weight import weight

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


@dataclass(slots=True)
class _Session:
    """The calls of one process: its party, and the answers that may have to be given again."""

    party: str
    attempt: int = 0
    records: dict[int, Answer] = field(default_factory=dict)


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
        self._sessions: dict[str, _Session] = {}
        self._waiting: dict[CallId, Call] = {}
        # in order of arrival: the order of a set would differ between processes
        self._by_owner: dict[tuple[str, str], dict[CallId, Call]] = {}
        self._released: list[str] = []
        self._end: str | None = None

    def apply(self, event: Event) -> Applied:
        """Apply the next event."""
        state = self._state
        state.now = event.at
        _APPLY[type(event)](self, event)
        answers, state.answered = state.answered, {}
        released, self._released = self._released, []
        for call_id, answer in answers.items():
            self._record(call_id, answer)
            if self._waiting:
                self._strike_off(call_id)
        return Applied(answers, released)

    def reads(self, operation: str) -> bool:
        """Whether the operation changes nothing: then `read` answers it."""
        return operation in self._state.reads

    def read(self, call: Call) -> Answer:
        """The answer to a call that changes nothing, not even the home's records."""
        try:
            return True, self._carry_out(call)
        except Exception as error:  # its caller sees it
            return False, error

    def is_late(self, call: Call) -> bool:
        """Whether the call is an old copy: its session has sent all calls that it stands for again since."""
        session = self._sessions.get(call.id[0])
        return session is not None and call.attempt < session.attempt

    def waiting(self) -> list[CallId]:
        """The calls that wait, in order of arrival."""
        return list(self._waiting)

    def owners(self) -> set[tuple[str, str]]:
        """Everybody of whom the home keeps anything: parties and runs."""
        parties = {(session.party, "") for session in self._sessions.values()}
        return {*self._by_owner, *self._state.owners(), *parties}

    @property
    def nbytes(self) -> int:
        """About how many bytes its entries and records have."""
        records = [answer for session in self._sessions.values() for answer in session.records.values()]
        return self._state.nbytes + weight(records)

    def statistics(self) -> dict[str, int]:
        """The numbers of entries, of waiting calls, and of answers that are kept; and about their bytes."""
        records = sum(len(session.records) for session in self._sessions.values())
        size, waiting = len(self._state), len(self._waiting)
        return {"size": size, "waiting": waiting, "records": records, "nbytes": self.nbytes}

    # --- copies ------------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[bytes, Iterable[Any]]:
        """Its pickle without the entries of its state, and the entries; both are as of now."""
        light = copy(self)
        light._state, entries = self._state.split()
        return pickle.dumps(light, protocol=5), entries

    def add_entries(self, entries: Iterable[Any]) -> None:
        """Add some of the entries of a snapshot, in their order."""
        self._state.add_entries(entries)

    # --- events ------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        records = self._session(call).records
        if (known := records.get(call.id[1])) is not None:
            self._state.answered[call.id] = known
        elif call.id not in self._waiting:
            self._begin(call)

    def _session(self, call: Call) -> _Session:
        """The session of a call, which says what it has received."""
        session = self._sessions.get(call.id[0])
        if session is None:
            session = self._sessions[call.id[0]] = _Session(call.caller.party)
        session.party, session.attempt = call.caller.party, max(session.attempt, call.attempt)
        for number in call.done:
            session.records.pop(number, None)
        return session

    def _begin(self, call: Call) -> None:
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

    def _record(self, call_id: CallId, answer: Answer) -> None:
        session = self._sessions.get(call_id[0])
        # one that was forgotten had no effect, and may be sent again
        if session is not None and not isinstance(answer[1], Forgotten):
            session.records[call_id[1]] = answer

    def _took(self, event: Took) -> None:
        session, number = event.call
        if (found := self._sessions.get(session)) is not None:
            found.records.pop(number, None)
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
            parted = [name for name, session in self._sessions.items() if session.party == event.party]
            for name in parted:
                del self._sessions[name]
        self._released += self._state.forget(event)

    def _close(self, event: Close) -> None:
        self._end = event.reason
        for call in self._waiting.values():
            self._state.withdraw(call, False)  # what others give back doesn't go to it any more
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
