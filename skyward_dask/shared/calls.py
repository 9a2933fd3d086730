"""What travels between a handle and a home: who calls, what, and the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skyward_dask.errors import SkywardError


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
    """One call of an operation.

    Attributes
    ----------
    session, number : str, int
        Name the call among all: a call that is withdrawn is called by them.
    caller : Caller
    operation : str
    arguments : tuple
        Plain values; what is the user's is opaque bytes.
    """

    session: str
    number: int
    caller: Caller
    operation: str
    arguments: tuple[Any, ...] = ()

    @property
    def id(self) -> tuple[str, int]:
        return self.session, self.number


class Moved(SkywardError):
    """The home isn't here, or doesn't know the caller's party: the call was not carried out."""


class Forgotten(Moved):
    """The caller's party was taken for lost while the call waited: it has had no effect."""


#: Whether it went well, and the value or the exception.
Answer = tuple[bool, Any]
Reply = Callable[[Answer], None]


class Ticket:
    """A call at its home, until it is answered.

    Parameters
    ----------
    call : Call
    reply : callable
        Takes the answer.
    settle : callable
        Takes the ticket and the answer, once.
    """

    __slots__ = ("_settle", "call", "reply", "settled")

    def __init__(self, call: Call, reply: Reply, settle: Callable[[Ticket, Answer], None]) -> None:
        self.call = call
        self.reply = reply
        self.settled = False
        self._settle = settle

    @property
    def caller(self) -> Caller:
        return self.call.caller

    def answer(self, value: object = None) -> None:
        self._settle(self, (True, value))

    def fail(self, error: Exception) -> None:
        self._settle(self, (False, error))


class Waits:
    """What an operation returns whose ticket is answered now or later."""


WAITS = Waits()
