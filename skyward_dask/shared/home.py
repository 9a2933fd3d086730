"""A home: where a collection, or one shard of it, lives. It applies calls, one at a time.

```
 Call ── apply ──▶ operation of the state ──▶ answer now
                                          └─▶ ticket waits ──▶ answer later: by another's call,
                                                               withdraw, forget or close
```

Each call is answered exactly once. Its caller may give it up (`withdraw`): then the answer says so, or is
the value that was on its way.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import CancelledError
from typing import Any

from skyward_dask.errors import CollectionConflict, SkywardError
from skyward_dask.shared.asks import Ask
from skyward_dask.shared.barrier import BarrierState
from skyward_dask.shared.calls import WAITS, Answer, Call, Reply, Ticket
from skyward_dask.shared.counter import CounterState
from skyward_dask.shared.line import QueueState
from skyward_dask.shared.lock import LockState
from skyward_dask.shared.mapping import DictState
from skyward_dask.shared.members import SetState
from skyward_dask.shared.state import Gone, State, operations

#: Written out: a registry that subclasses fill would be empty where nobody has imported them.
KINDS: dict[str, type[State]] = {
    "barrier": BarrierState,
    "counter": CounterState,
    "dict": DictState,
    "lock": LockState,
    "queue": QueueState,
    "set": SetState,
}
_OPERATIONS = {kind: operations(state) for kind, state in KINDS.items()}
#: The one operation that concerns a call and not the state.
WITHDRAW = "withdraw"


def withdrawal(ask: Ask, call_id: tuple[str, int], expired: bool) -> Ask:
    """The question that takes another one back."""
    return Ask(WITHDRAW, (*call_id, expired), ask.place)


class Withdrawn(SkywardError):
    """The answer to a call that was given up while it waited; `left` is what the state says of it."""

    def __init__(self, left: object = None) -> None:
        super().__init__(left)
        self.left = left


class Home:
    """The state of a collection, and who waits for it.

    Parameters
    ----------
    kind : str
    options : dict
        Of the state's class.

    Notes
    -----
    Thread-safe. Replies are called without the lock, in the thread that has caused them.
    """

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self._state = KINDS[kind](**options)
        self._operations = _OPERATIONS[kind]
        self._kind = kind
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], Ticket] = {}
        self._by_owner: defaultdict[tuple[str, str], set[Ticket]] = defaultdict(set)
        self._given: dict[tuple[str, int], tuple[Ticket, object]] = {}
        self._settled: list[tuple[Ticket, Answer]] = []
        self._end: SkywardError | None = None
        self._count = 0

    def apply(self, call: Call, reply: Reply, guarded: bool = False) -> None:
        """Carry a call out; `reply` is called with its answer, now or later.

        Parameters
        ----------
        guarded : bool
            The answer may be lost on its way: if its loss would lose something, `took` is said when it has
            come to the caller's party, or `take_back` when that is gone.
        """
        ticket = Ticket(call, reply, self._settle, guarded)
        with self._lock:
            self._count += 1
            try:
                value = self._carry_out(ticket)
            except Exception as error:  # the caller's to see
                ticket.fail(error)
            else:
                if value is not WAITS:
                    ticket.answer(value)
                elif not ticket.settled:
                    self._note(ticket)
            settled = self._drain()
        for each, answer in settled:
            each.reply(answer)

    def _carry_out(self, ticket: Ticket) -> object:
        call = ticket.call
        if self._end is not None:
            raise self._end
        if call.operation == WITHDRAW:
            self._withdraw(*call.arguments)
            return None
        operation = self._operations.get(call.operation)
        if operation is None:
            raise CollectionConflict(f"a {self._kind} has no operation {call.operation!r}.")
        return operation(self._state, ticket, *call.arguments)

    def _withdraw(self, session: str, number: int, expired: bool) -> None:
        ticket = self._waiting.get((session, number))
        if ticket is not None:  # else its answer is on its way
            ticket.fail(Withdrawn(self._state.withdraw(ticket, expired)))

    def forget(self, gone: Gone) -> list[str]:
        """Callers are gone: give back what they hold, and wait no longer on their behalf.

        Returns what was held, in words.
        """
        with self._lock:
            owners = [owner for owner in self._by_owner if gone(owner)]
            for ticket in [ticket for owner in owners for ticket in self._by_owner[owner]]:
                self._state.withdraw(ticket, False)
                ticket.fail(CancelledError(f"{ticket.caller} has ended, or is taken for lost"))
            held = list(self._state.forget(gone))
            settled = self._drain()
        for each, answer in settled:
            each.reply(answer)
        return held

    def took(self, call_id: tuple[str, int]) -> None:
        """An answer has come to the caller's party."""
        with self._lock:
            self._given.pop(call_id, None)

    def take_back(self, party: str) -> None:
        """A party is gone: undo what it was given and has not taken, the last first."""
        with self._lock:
            lost = [given for given in self._given.values() if given[0].caller.party == party]
            for ticket, value in reversed(lost):
                del self._given[ticket.call.id]
                undo = self._operations[self._state.undone[ticket.call.operation]]
                undo(self._state, ticket, value)
            settled = self._drain()
        for each, answer in settled:
            each.reply(answer)

    def close(self, error: SkywardError) -> None:
        """The collection has ended: whoever waits, and whoever still calls, gets this error."""
        with self._lock:
            self._end = error
            for ticket in list(self._waiting.values()):
                ticket.fail(error)
            settled = self._drain()
        for each, answer in settled:
            each.reply(answer)

    def statistics(self) -> dict[str, int]:
        """Operations that were carried out, entries, calls that wait."""
        with self._lock:
            return {"operations": self._count, "size": len(self._state), "waiting": len(self._waiting)}

    # --- tickets; with the lock held -------------------------------------------------------------------

    def _note(self, ticket: Ticket) -> None:
        self._waiting[ticket.call.id] = ticket
        self._by_owner[ticket.caller.owner].add(ticket)

    def _settle(self, ticket: Ticket, answer: Answer) -> None:
        ticket.settled = True
        if ticket.guarded and answer[0] and ticket.call.operation in self._state.undone:
            self._given[ticket.call.id] = ticket, answer[1]
        self._settled.append((ticket, answer))
        if self._waiting.pop(ticket.call.id, None) is not None:
            tickets = self._by_owner[ticket.caller.owner]
            tickets.discard(ticket)
            if not tickets:
                del self._by_owner[ticket.caller.owner]

    def _drain(self) -> list[tuple[Ticket, Answer]]:
        settled, self._settled = self._settled, []
        return settled
