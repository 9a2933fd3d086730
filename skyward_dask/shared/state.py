"""What all collections' states have in common: operations, and calls that can be given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType

from skyward_dask.shared.events import Answer, Call, CallId, Forget


class Waits:
    """What an operation returns whose call is answered by `State.answer`, now or later."""


WAITS = Waits()


class State:
    """A collection at its home: each public method of a subclass is an operation.

    An operation takes its call and that call's arguments. It returns its value; or `WAITS`, and then answers
    the call at once or later. All that it keeps is plain data, which can be pickled.

    Attributes
    ----------
    now : float
        When the event came that is being applied: a state has no clock.
    answered : dict
        The answers that this event has brought, by their calls' ids; the home takes them.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.answered: dict[CallId, Answer] = {}

    def answer(self, call: Call, value: object = None) -> None:
        self.answered[call.id] = True, value

    def fail(self, call: Call, error: Exception) -> None:
        self.answered[call.id] = False, error

    def withdraw(self, call: Call, expired: bool) -> int | None:
        """Take a waiting call back; returns how much of it is left undone, None for all of it.

        Parameters
        ----------
        expired : bool
            Its timeout is over; else its caller is gone, or has been interrupted.
        """
        return None

    def undo(self, call_id: CallId) -> None:
        """Take back what a call has given to its caller, who doesn't want it any more."""

    def took(self, call_id: CallId) -> None:
        """The caller has the answer to a call that is to be confirmed."""

    def undo_all(self, gone: Forget) -> None:
        """Take back what is on its way to callers that are gone, and can't confirm it any more."""

    def forget(self, gone: Forget) -> Iterator[str]:
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
