"""What happens to a home: plain, frozen events, which it applies one after the other.

```
 caller, or its worker ───── Call, Took, Withdraw ──▶ ┌──────┐
 worker, directory ───────── Forget ────────────────▶ │ Home │ ──▶ answers, by the ids of their calls
 directory ───────────────── Close ─────────────────▶ └──────┘
```

An event contains everything that a home may need, including the time at which it arrived: so the same events
produce the same home and the same answers, in another process too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from skyward_dask.errors import SkywardError

#: Session and number, which together identify a call.
CallId = tuple[str, int]
#: Whether the call succeeded, and its value or its exception.
Answer = tuple[bool, Any]


class Caller(NamedTuple):
    """Who makes a call; what a caller holds is released when it ends.

    Attributes
    ----------
    party : str
        One lifetime of a worker's process, or of a client's connection to the scheduler: its late messages
        can be told from those of its successor, even if the successor has the same address.
    run : str
        One run of a task, or an actor; empty for the party itself.
    task : str or None
        The task's key.
    slot : int or None
        The process slot that the task runs in.
    place : str
        The worker's address or the client's id, for human readers.
    """

    party: str
    run: str = ""
    task: str | None = None
    slot: int | None = None
    place: str = ""

    @property
    def owner(self) -> tuple[str, str]:
        """Calls with the same owner may release what the others have acquired."""
        return self.party, self.run

    def __str__(self) -> str:
        return f"task {self.task!r} on {self.place}" if self.task else self.run or self.place


class Call(NamedTuple):
    """A request to carry out an operation.

    Attributes
    ----------
    id : tuple of (str, int)
    caller : Caller
    operation : str
    arguments : tuple
        Plain values; users' values are opaque bytes.
    at : float
        When it arrived at the home, in seconds since the epoch; so in every event.
    attempt : int
        How often the session has lost answers of this home: of two copies of a call, the one with the lower
        number came too late.
    done : tuple of int
        Earlier calls of this session whose answers have arrived: the home needn't keep these any more.
    """

    id: CallId
    caller: Caller
    operation: str
    arguments: tuple[Any, ...] = ()
    at: float = 0.0
    attempt: int = 0
    done: tuple[int, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _call, (self.id, tuple(self.caller), *self[2:])


def _call(call_id: CallId, who: tuple[Any, ...], *rest: Any) -> Call:
    """Unpickle a call: flat, it takes half of the time."""
    return Call(call_id, Caller(*who), *rest)


@dataclass(frozen=True, slots=True)
class Took:
    """The caller confirms that it has the answer to a call."""

    call: CallId
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A call is given up.

    Attributes
    ----------
    expired : bool
        The call timed out: its caller still takes an answer that is on its way. Otherwise nobody does, and
        what such an answer gives is taken back.
    """

    call: CallId
    expired: bool = False
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Forget:
    """A run has ended; or, if `run` is None, a party has ended with all its runs."""

    party: str
    run: str | None = None
    at: float = 0.0

    def concerns(self, owner: tuple[str, str]) -> bool:
        return owner[0] == self.party and self.run in (None, owner[1])


@dataclass(frozen=True, slots=True)
class Close:
    """The collection has ended; callers that wait, or that call later, get the `reason`."""

    reason: str
    at: float = 0.0


Event = Call | Took | Withdraw | Forget | Close


class Moved(SkywardError):
    """The home isn't here, or doesn't know the caller's party: the call was not carried out."""


class Deposed(SkywardError):
    """Another home has taken over: the call may have been carried out, and can be sent again."""


class Forgotten(Moved):
    """The caller's party was considered lost while the call waited: the call has had no effect."""


class Withdrawn(SkywardError):
    """The answer to a call that was given up while it waited; `left` is what `State.withdraw` returned."""

    def __init__(self, left: int | None = None) -> None:
        super().__init__(left)
        self.left = left
