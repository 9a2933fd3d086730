"""What happens to a home: plain, frozen events, which it takes in one order.

```
 who calls, or its worker ── Call, Took, Withdraw ──▶ ┌──────┐
 worker, directory ───────── Forget ────────────────▶ │ Home │ ──▶ answers, by the ids of their calls
 directory ───────────────── Close ─────────────────▶ └──────┘
```

An event has in it all that a home may need, also the moment at which it came: so the same events make the
same home and the same answers, in another process too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skyward_dask.errors import SkywardError

#: Session and number, which name a call among all.
CallId = tuple[str, int]
#: Whether it went well, and the value or the exception.
Answer = tuple[bool, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call; what it holds is given back when it is gone.

    Attributes
    ----------
    party : str
        One life of a worker's process, or of a client's connection to the scheduler: what comes after its end
        is told apart from what its successor says, whatever that has for an address.
    run : str
        One run of a task, or an actor; empty: the party itself.
    task : str or None
        The task's key.
    slot : int or None
        The process slot that it runs in.
    place : str
        The worker's address, or the client's id, for people.
    """

    party: str
    run: str = ""
    task: str | None = None
    slot: int | None = None
    place: str = ""

    @property
    def owner(self) -> tuple[str, str]:
        """What two calls have in common that may give back what the other has taken."""
        return self.party, self.run

    def __str__(self) -> str:
        return f"task {self.task!r} on {self.place}" if self.task else self.run or self.place


@dataclass(frozen=True, slots=True)
class Call:
    """An operation is to be carried out.

    Attributes
    ----------
    id : tuple of (str, int)
    caller : Caller
    operation : str
    arguments : tuple
        Plain values; what is the user's is opaque bytes.
    at : float
        When it came to the home: seconds since the epoch, as in each event.
    """

    id: CallId
    caller: Caller
    operation: str
    arguments: tuple[Any, ...] = ()
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Took:
    """The caller has the answer to a call that is to be confirmed."""

    call: CallId
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A call is given up.

    Attributes
    ----------
    expired : bool
        Its time-out is over: its caller takes an answer that is on its way. Else nobody does, and what it
        brings is taken back.
    """

    call: CallId
    expired: bool = False
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Forget:
    """A run has ended; or, if `run` is None, a party is gone with all its runs."""

    party: str
    run: str | None = None
    at: float = 0.0

    def concerns(self, owner: tuple[str, str]) -> bool:
        return owner[0] == self.party and self.run in (None, owner[1])


@dataclass(frozen=True, slots=True)
class Close:
    """The collection has ended; `reason` is for whoever waits, and whoever still calls."""

    reason: str
    at: float = 0.0


Event = Call | Took | Withdraw | Forget | Close


class Moved(SkywardError):
    """The home isn't here, or doesn't know the caller's party: the call was not carried out."""


class Forgotten(Moved):
    """The caller's party was taken for lost while the call waited: it has had no effect."""


class Withdrawn(SkywardError):
    """The answer to a call that was given up while it waited; `left` is what the state says of it."""

    def __init__(self, left: int | None = None) -> None:
        super().__init__(left)
        self.left = left
