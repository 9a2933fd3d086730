"""The error for a task that returns a call instead of running it: it says what to submit."""

from __future__ import annotations

from typing import TypeVar

from skyward_dask.errors import OperatorError

T = TypeVar("T")


class NotRun:
    """The base class of calls that haven't run: see `skyward_dask.api.calls`."""

    __slots__ = ()


def refuse_unrun(result: T, key: object) -> T:
    """Return the result; raises an error if it is a call, which should have been run."""
    if isinstance(result, NotRun):
        raise OperatorError(
            f"task {key!r} returned {result!r}, which hasn't run: calls of a @skyward_dask.function are for "
            "`f(x) >> compute`. Submit f.local, the ordinary function."
        )
    return result
