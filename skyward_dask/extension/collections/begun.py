"""A call of this process that has no answer yet, or what a home still has to know about one."""

from __future__ import annotations

from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from skyward_dask.errors import CollectionLost
from skyward_dask.extension.collections.call_messages import Word
from skyward_dask.extension.collections.read_cache import Asked
from skyward_dask.shared.asks import Ask, Pending, Route, Spec
from skyward_dask.shared.events import Caller
from skyward_dask.shared.kinds import KINDS


@dataclass(slots=True, eq=False)
class Begun:
    """A call of this process, or a word about one, that has no answer yet.

    Attributes
    ----------
    word : Took, Withdraw or Forget, optional
        What it is, if it isn't a call.
    done : tuple of int
        The answered calls that it tells its home of.
    sent_as : str
        The party that has sent it.
    attempt : int
        The attempt at its home, when it was sent.
    is_doubtful : bool
        Whether it may have been carried out.
    tries, since : int, float
        How often it has come back, and since when.
    """

    spec: Spec
    ask: Ask
    caller: Caller
    pending: Pending
    asked: Asked
    word: Word | None = None
    done: tuple[int, ...] = ()
    sent_as: str = ""
    attempt: int = 0
    is_doubtful: bool = False
    tries: int = 0
    since: float = 0.0

    @property
    def home_key(self) -> str:
        """The key of the home that it was sent to."""
        return "" if self.pending.home is None else self.pending.home[1]

    @property
    def key(self) -> str:
        """The key of the only home that it may be sent to; empty if any will do."""
        return self.home_key if self.is_doubtful else ""

    @property
    def is_kept(self) -> bool:
        """Whether the home keeps its answer."""
        return self.word is None and self.ask.operation not in KINDS[self.spec.kind].state.reads

    def came_back(self) -> float:
        """It has come back without an answer; returns for how many seconds it has done so."""
        self.since = self.since if self.tries else monotonic()
        self.tries += 1
        return monotonic() - self.since

    def succeed(self, value: object) -> None:
        with suppress(InvalidStateError):  # it was withdrawn before it was sent, or the process has left
            self.pending.set_result(value)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.pending.set_exception(error)


def lost(spec: Spec, route: Route) -> CollectionLost:
    workers = ", ".join(sorted({worker for worker, _ in route.homes}))
    return CollectionLost(
        f"{spec.kind} {spec.name!r} lives on {workers}, and the connection to the scheduler was lost while "
        "an operation was on its way: it may have taken effect."
    )


def destroyed(spec: Spec) -> CollectionLost:
    return CollectionLost(
        f"{spec.kind} {spec.name!r} was destroyed, and created again, while an operation was on its way."
    )


def unreachable(begun: Begun, cause: BaseException) -> CollectionLost:
    effect = "may have been" if begun.is_doubtful else "was not"
    error = CollectionLost(
        f"{begun.spec.kind} {begun.spec.name!r} can't be reached, and the operation {effect} carried out: "
        "its worker or the scheduler doesn't answer, or this process is closing. If the scheduler has ended, "
        "its collections have ended with it."
    )
    error.__cause__ = cause
    return error
