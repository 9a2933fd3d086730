"""What all collections' states have in common: operations, and calls that can be given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import ClassVar

from skyward_dask.shared.calls import Ticket

#: Whether a caller is gone, by its `Caller.owner`.
Gone = Callable[[tuple[str, str]], bool]


class State:
    """A collection at its home: each public method of a subclass is an operation.

    An operation takes its ticket and plain arguments. It returns its value; or `WAITS`, and then answers
    the ticket at once or later.

    Attributes
    ----------
    confirmed : frozenset of str
        Operations whose answers must not be lost on their way: the caller confirms each that it has.
    """

    confirmed: ClassVar[frozenset[str]] = frozenset()

    def withdraw(self, ticket: Ticket, expired: bool) -> int | None:
        """Take a waiting call back; returns how much of it is left undone, None for all of it.

        Parameters
        ----------
        expired : bool
            Its time-out is over; else its caller is gone, or has been interrupted.
        """
        return None

    def undo(self, call_id: tuple[str, int]) -> None:
        """Take back what a call has given to its caller, who doesn't want it any more."""

    def took(self, call_id: tuple[str, int]) -> None:
        """The caller has the answer to a call that is to be confirmed."""

    def undo_all(self, gone: Gone) -> None:
        """Take back what is on its way to callers that are gone, and can't confirm it any more."""

    def forget(self, gone: Gone) -> Iterator[str]:
        """Give back what callers hold that are gone; yields what in words, for a warning."""
        yield from ()

    def __len__(self) -> int:
        """Entries, items, or those who wait: what tells its size."""
        return 0


def operations(kind: type[State]) -> dict[str, Callable[..., object]]:
    """The operations of a kind by name: what a home carries out, and nothing else."""
    return {
        name: found
        for name, found in vars(kind).items()
        if isinstance(found, FunctionType) and not name.startswith("_") and name not in vars(State)
    }
