"""What all collections' states have in common: operations, and calls that can be given up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from types import FunctionType
from typing import Any, ClassVar, TypeVar

from skyward_dask.shared.events import Answer, Call, CallId, Forget

S = TypeVar("S", bound="State")


class Waits:
    """What an operation returns if it answers its call with `State.answer`, now or later."""


WAITS = Waits()


class State:
    """A collection at its home: each public method of a subclass is an operation.

    An operation takes a call and that call's arguments. It returns a value; or `WAITS`, and then answers the
    call at once or later. All that a state keeps is plain data, which can be pickled.

    Attributes
    ----------
    now : float
        When the event that is being applied arrived: a state has no clock.
    answered : dict
        The answers that this event has produced, by their calls' ids; the home takes them.
    reads : frozenset of str
        The operations that change nothing.
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.now = 0.0
        self.answered: dict[CallId, Answer] = {}

    def answer(self, call: Call, value: object = None) -> None:
        self.answered[call.id] = True, value

    def fail(self, call: Call, error: Exception) -> None:
        self.answered[call.id] = False, error

    def withdraw(self, call: Call, expired: bool) -> int | None:
        """Take back a waiting call; returns how much of it is left undone, None for all of it.

        Parameters
        ----------
        expired : bool
            It timed out; otherwise its caller has ended, or was interrupted.
        """
        return None

    def undo(self, call_id: CallId) -> None:
        """Take back what a call has given to a caller that doesn't want it any more."""

    def took(self, call_id: CallId) -> None:
        """The caller confirms that it has the answer to a call."""

    def undo_all(self, gone: Forget) -> None:
        """Take back what is on its way to callers that have ended, and so can't confirm it any more."""

    def forget(self, gone: Forget) -> Iterator[str]:
        """Release what callers that have ended still hold; yields what that is, in words, for a warning."""
        yield from ()

    def owners(self) -> Iterator[tuple[str, str]]:
        """Whoever holds something, or may have something on its way to it."""
        yield from ()

    def split(self: S) -> tuple[S, Iterable[Any]]:
        """A copy of it without its entries, and the entries; it shares with the copy what it may change."""
        return copy(self), ()

    def add_entries(self, entries: Iterable[Any]) -> None:
        """Add some of the entries of `split`, in their order."""

    @property
    def nbytes(self) -> int:
        """About how many bytes its entries have."""
        return 0

    def __len__(self) -> int:
        """The size: the number of entries, of items, or of waiting callers."""
        return 0


def operations(kind: type[State]) -> dict[str, Callable[..., object]]:
    """The operations of a kind, by name: a home carries out these and nothing else."""
    return {
        name: found
        for name, found in vars(kind).items()
        if isinstance(found, FunctionType) and not name.startswith("_") and name not in vars(State)
    }
