"""What a task meets that returns a call instead of running it: an error that says what to submit."""

from __future__ import annotations

from typing import TypeVar

from skyward_dask.errors import OperatorError

T = TypeVar("T")


class NotRun:
    """The base of calls that haven't run: see `skyward_dask.api.calls`."""

    __slots__ = ()


def refuse_unrun(result: T, key: object) -> T:
    """The result, unless it is a call that was to be run."""
    if isinstance(result, NotRun):
        raise OperatorError(
            f"task {key!r} returned {result!r}, which hasn't run: calls of a @skyward_dask.function are for "
            "`f(x) >> compute`. Submit f.local, the ordinary function."
        )
    return result
