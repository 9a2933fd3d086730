"""What all collections' states have in common: operations, and calls that can be given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    undone : dict
        For operations whose answer must not be lost: the operation that takes such an answer back.
    """

    undone: ClassVar[Mapping[str, str]] = {}

    def withdraw(self, ticket: Ticket, expired: bool) -> object:
        """Take a waiting call back; what is returned goes to its caller.

        Parameters
        ----------
        expired : bool
            Its time-out is over; else its caller is gone, or has been interrupted.
        """
        return None

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
