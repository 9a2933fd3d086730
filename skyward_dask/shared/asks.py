"""What a handle asks of a collection, and where that collection lives."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Spec:
    """A collection as its handle knows it.

    Attributes
    ----------
    kind, name : str
    options : tuple of (str, value)
        The options that were given: they must match the collection's.
    """

    kind: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return Spec, (
            self.kind,
            self.name,
            self.options,
        )  # takes a fifth of the time of a dataclass's own reduction

    def differs(self, kind: str, options: Mapping[str, Any]) -> str:
        """How it differs from the collection of that name, in words; empty if it doesn't."""
        if kind != self.kind:
            return f"is a {kind}"
        different = [f"{name}={options[name]!r}" for name, value in self.options if options[name] != value]
        return f"has {', '.join(different)}" if different else ""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a collection lives.

    Attributes
    ----------
    kind : str
    options : dict
    homes : tuple of (str, str)
        For each shard the address of its worker, and its key there.
    epochs : tuple of int
        For each shard its epoch: it grows whenever another worker may have become its host.
    """

    kind: str
    options: Mapping[str, Any]
    homes: tuple[tuple[str, str], ...]
    epochs: tuple[int, ...] = ()

    @property
    def is_eventual(self) -> bool:
        return self.options.get("consistency") == "eventual"

    def home(self, ask: Ask) -> tuple[str, str]:
        """The worker and the key of the home that a question goes to."""
        return self.homes[ask.place % len(self.homes)]


class Ask(NamedTuple):
    """What a handle asks of a home.

    Attributes
    ----------
    operation : str
        Empty to only find the collection: the answer is then its `Route`.
    arguments : tuple
    place : int
        Selects the home: that of the shard ``place % shards``.
    binds : bool
        The caller waits at the home, or gets something that is taken back if the call is given up.
    reads : bool
        The operation changes nothing: with eventual consistency a slightly older answer will do.
    timeout : float or None
        The longest time that the caller waits, in seconds.
    """

    operation: str = ""
    arguments: tuple[Any, ...] = ()
    place: int = 0
    binds: bool = False
    reads: bool = False
    timeout: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Ask, tuple(self)  # for speed, as in `Spec`


OPEN = Ask()


class Pending(Future[Any]):
    """The future answer to a call.

    Attributes
    ----------
    id : tuple of (str, int)
        Identifies the call.
    home : tuple of (str, str), optional
        Worker and key of the home that has been asked; None before that, and where it isn't known.
    confirmed : bool
        Whether the home must be told that the caller has the answer.
    asked : tuple of (Spec, int)
        The collection, and the place in it.
    withdrawn : bool
        Whether the call was given up.
    """

    def __init__(self, session: str, number: int, asked: tuple[Spec, int]) -> None:
        super().__init__()
        self.id, self.asked = (session, number), asked
        self.home: tuple[str, str] | None = None
        self.confirmed = self.withdrawn = False
        self.set_running_or_notify_cancel()
