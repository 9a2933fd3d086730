"""The messages between the processes of a cluster about calls of collections.

```
 caller's process              (the scheduler's, for a client)               the home's worker
   Request  n ───────────────────────── relayed ─────────────────────────▶  Call
            n ◀──────────────────────── relayed ─────────────────────────── Reply: an answer
   Confirm, GiveUp, RunEnded ────────── relayed ─────────────────────────▶  Took, Withdraw, Forget
```

On the right are the events that a home takes. Over one connection messages arrive in the order in which
they were sent: a message about a call arrives after the call.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from skyward_dask.shared.events import Call, Caller, CallId, Forget, Took, Withdraw


@dataclass(frozen=True, slots=True)
class Request:
    """Apply this `pickled` call to the home of this key on this worker; the reply has the same `number`."""

    number: int
    worker: str
    key: str
    call: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The pickled answer to a request; None if it was lost, and the request may have taken effect."""

    number: int
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Confirm:
    """The caller has received an answer of the kind that must not be lost: the items of a queue."""

    worker: str
    key: str
    session: str
    call: int

    def event(self, at: float) -> Took:
        return Took((self.session, self.call), at)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The call is given up; unless it has timed out (`expired`), what it was given is taken back."""

    worker: str
    key: str
    session: str
    call: int
    expired: bool

    def event(self, at: float) -> Withdraw:
        return Withdraw((self.session, self.call), self.expired, at)


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run of the party has ended, and may hold something at this home."""

    worker: str
    key: str
    party: str
    run: str

    def event(self, at: float) -> Forget:
        return Forget(self.party, self.run, at)


#: The messages that have no answer.
Word = Confirm | GiveUp | RunEnded
Message = Request | Reply | Word

#: The messages' names on the wire, where each message is a tuple of its name and its fields.
_NAMES: dict[str, Callable[..., Message]] = {
    "request": Request,
    "reply": Reply,
    "confirm": Confirm,
    "give-up": GiveUp,
    "run-ended": RunEnded,
}
_WRITTEN: dict[Any, tuple[str, Callable[[Message], tuple[Any, ...]]]] = {
    kind: (name, attrgetter(*(each.name for each in fields(kind))))  # type: ignore[arg-type]
    for name, kind in _NAMES.items()
}


def written(message: Message) -> tuple[Any, ...]:
    """The message as plain values."""
    name, values = _WRITTEN[type(message)]
    return name, *values(message)


def read(plain: Sequence[Any]) -> Message:
    """The message that `written` has turned into plain values."""
    return _NAMES[plain[0]](*plain[1:])


def pickled(call_id: CallId, caller: Caller, operation: str, arguments: tuple[Any, ...]) -> bytes:
    """Pickle a call as a flat tuple, which takes a fifth of the time; its moment is when it arrives."""
    who = caller.party, caller.run, caller.task, caller.slot, caller.place
    return pickle.dumps((*call_id, *who, operation, arguments), protocol=5)


def unpickled(data: bytes, at: float) -> Call:
    """Unpickle a call, as an event for its home at this moment."""
    session, number, party, run, task, slot, place, operation, arguments = pickle.loads(data)
    return Call((session, number), Caller(party, run, task, slot, place), operation, arguments, at)
