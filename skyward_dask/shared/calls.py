"""What travels between a handle and a home: who calls, what, and the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call; what it holds is given back when it is gone.

    Attributes
    ----------
    party : str
        A worker's address, or a client's id.
    run : str
        One run of a task, or an actor; empty: the party itself.
    task : str or None
        The task's key.
    slot : int or None
        The process slot that it runs in.
    """

    party: str
    run: str = ""
    task: str | None = None
    slot: int | None = None

    @property
    def owner(self) -> tuple[str, str]:
        """What two calls have in common that may give back what the other has taken."""
        return self.party, self.run

    def __str__(self) -> str:
        return f"task {self.task!r} on {self.party}" if self.task else self.run or self.party


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
    guarded : bool
        Whether the answer may be lost on its way.
    """

    __slots__ = ("_settle", "call", "guarded", "reply", "settled")

    def __init__(
        self, call: Call, reply: Reply, settle: Callable[[Ticket, Answer], None], guarded: bool = False
    ) -> None:
        self.call = call
        self.reply = reply
        self.guarded = guarded
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
