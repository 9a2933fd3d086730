"""The messages between the processes of a cluster about calls of collections.

```
 caller's process              (the scheduler's, for a client)               the home's worker
   Request  n ───────────────────────── relayed ─────────────────────────▶  Call, Took, Withdraw, Forget
            n ◀──────────────────────── relayed ─────────────────────────── Reply: an answer
 host's process
   Copy     n ────────────────────────────────────────────────────────────▶  Begin, Piece, Append
            n ◀─────────────────────────────────────────────────────────── Reply: whether it was taken
```

On the right are the events that a home takes, and the messages that a standby takes. Over one connection
messages arrive in the order in which they were sent: a message about a call arrives after the call.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

from skyward_dask.shared.events import Call, Caller, Forget, Took, Withdraw

#: What a caller's process says of its calls, besides making them.
Word = Took | Withdraw | Forget


@dataclass(frozen=True, slots=True)
class Request:
    """Apply this `pickled` event to the home of this key on this worker; the reply has the same `number`."""

    number: int
    worker: str
    key: str
    event: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """The standby of this key has to take this pickled message; the reply has the same `number`."""

    number: int
    worker: str
    key: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The pickled answer to a request; None if it was lost, and the request may have taken effect."""

    number: int
    answer: bytes | None


Message = Request | Copy | Reply

#: The messages' names on the wire, where each message is a tuple of its name and its fields.
_NAMES: dict[str, Callable[..., Message]] = {"request": Request, "copy": Copy, "reply": Reply}
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


def pickled(event: Call | Word) -> bytes:
    """Pickle an event for its home; calls as a flat tuple, which takes a fifth of the time."""
    if not isinstance(event, Call):
        return pickle.dumps(event, protocol=5)
    what = event.operation, event.arguments, event.attempt, event.done
    return pickle.dumps((*event.id, *event.caller, *what), protocol=5)


def unpickled(data: bytes, at: float) -> Call | Word:
    """Unpickle an event for its home, at the moment at which it has arrived."""
    found = pickle.loads(data)
    if not isinstance(found, tuple):
        word: Word = replace(found, at=at)
        return word
    session, number, party, run, task, slot, place, operation, arguments, attempt, done = found
    caller = Caller(party, run, task, slot, place)
    return Call((session, number), caller, operation, arguments, at, attempt, done)
