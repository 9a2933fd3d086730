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
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from skyward_dask.errors import CollectionConflict, SkywardError
from skyward_dask.shared.barrier import BarrierState
from skyward_dask.shared.calls import WAITS, Answer, Call, Forgotten, Reply, Ticket
from skyward_dask.shared.counter import CounterState
from skyward_dask.shared.dict import DictState
from skyward_dask.shared.lock import LockState
from skyward_dask.shared.queue import QueueState
from skyward_dask.shared.set import SetState
from skyward_dask.shared.state import State, operations

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


class Withdrawn(SkywardError):
    """The answer to a call that was given up while it waited; `left` is what the state says of it."""

    def __init__(self, left: int | None = None) -> None:
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
        self._settled: list[tuple[Ticket, Answer]] = []
        self._end: SkywardError | None = None
        self._count = 0

    def apply(self, call: Call, reply: Reply) -> None:
        """Carry a call out; `reply` is called with its answer, now or later."""
        ticket = Ticket(call, reply, self._settle)
        with self._changing():
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

    def _carry_out(self, ticket: Ticket) -> object:
        call = ticket.call
        if self._end is not None:
            raise self._end
        operation = self._operations.get(call.operation)
        if operation is None:
            raise CollectionConflict(f"a {self._kind} has no operation {call.operation!r}.")
        return operation(self._state, ticket, *call.arguments)

    def withdraw(self, call_id: tuple[str, int], expired: bool) -> None:
        """A call is given up: it waits no longer.

        Parameters
        ----------
        expired : bool
            Its time-out is over: its caller takes an answer that is on its way. Else nobody does, and what it
            brings is taken back.
        """
        with self._changing():
            if (ticket := self._waiting.get(call_id)) is not None:
                ticket.fail(Withdrawn(self._state.withdraw(ticket, expired)))
            elif not expired:
                self._state.undo(call_id)

    def took(self, call_id: tuple[str, int]) -> None:
        """The caller has the answer to a call that is to be confirmed."""
        with self._lock:
            self._state.took(call_id)

    def forget(self, party: str, run: str | None = None) -> list[str]:
        """A run has ended, or a party is gone with all its runs: they hold nothing, and wait for nothing.

        Returns what was held, in words. What is on its way to a run is not taken back: its worker lives, and
        says of each answer whether it came (an answer that came is not to be given to somebody else).
        """

        def gone(owner: tuple[str, str]) -> bool:
            return owner[0] == party and run in (None, owner[1])

        with self._changing():
            for ticket in [t for owner, tickets in self._by_owner.items() if gone(owner) for t in tickets]:
                left = self._state.withdraw(ticket, False)
                # a client that has lost its connection may come again, and then ask anew
                can_ask_again = run is None and left is None
                ticket.fail(Forgotten() if can_ask_again else CancelledError(f"{ticket.caller} has ended"))
            if run is None:
                self._state.undo_all(gone)
            return list(self._state.forget(gone))

    def close(self, error: SkywardError) -> None:
        """The collection has ended: whoever waits, and whoever still calls, gets this error."""
        with self._changing():
            self._end = error
            for ticket in list(self._waiting.values()):
                ticket.fail(error)

    def statistics(self) -> dict[str, int]:
        """Operations that were carried out, entries, calls that wait."""
        with self._lock:
            return {"operations": self._count, "size": len(self._state), "waiting": len(self._waiting)}

    # --- tickets; with the lock held -------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, and give the answers afterwards."""
        with self._lock:
            yield
            settled, self._settled = self._settled, []
        for ticket, answer in settled:
            ticket.reply(answer)

    def _note(self, ticket: Ticket) -> None:
        self._waiting[ticket.call.id] = ticket
        self._by_owner[ticket.caller.owner].add(ticket)

    def _settle(self, ticket: Ticket, answer: Answer) -> None:
        ticket.settled = True
        self._settled.append((ticket, answer))
        if self._waiting.pop(ticket.call.id, None) is not None:
            tickets = self._by_owner[ticket.caller.owner]
            tickets.discard(ticket)
            if not tickets:
                del self._by_owner[ticket.caller.owner]
