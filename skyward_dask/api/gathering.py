"""`gather`: many calls that run at once, as a list or an iterator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, overload

from skyward_dask.api.calls import TOGETHER, Call, Function, Group
from skyward_dask.api.mistakes import Unrun
from skyward_dask.api.targets import Destination, described, waiting_target
from skyward_dask.arguments import takes_only
from skyward_dask.errors import OperatorError
from skyward_dask.extension.tracebacks import shortened

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Gather(Unrun, Generic[T]):
    """Calls that run at once; ``gathered >> compute`` is what `gather` says."""

    calls: tuple[Call[Any], ...]
    stream: bool
    ordered: bool
    progress: bool

    def with_timeout(self, seconds: float | str) -> Gather[T]:
        """The same calls, with this timeout for each: see `Call.with_timeout`."""
        return replace(self, calls=tuple(call.with_timeout(seconds) for call in self.calls))

    def __rshift__(self, compute: Destination) -> T:
        with shortened():
            target, calls = waiting_target(">>", compute, TOGETHER), self.calls
            results: Any
            if self.stream:
                results = target.stream(calls, self.ordered)
            else:
                results = target.run(calls, self.progress)
            return results  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[Call[Any]]:
        return iter(self.calls)

    def __repr__(self) -> str:
        more = [f"... {len(self.calls)} calls"] if len(self.calls) > 3 else []
        return f"gather({', '.join([*map(repr, self.calls[:3]), *more])})"


@overload
def gather(
    *calls: Call[T], stream: Literal[False] = False, ordered: bool = True, progress: bool = True
) -> Gather[list[T]]: ...
@overload
def gather(
    *calls: Call[T], stream: Literal[True], ordered: bool = True, progress: bool = True
) -> Gather[Iterator[T]]: ...
@takes_only("A time limit for each call is set by gather(...).with_timeout(seconds).")
def gather(
    *calls: Call[Any], stream: bool = False, ordered: bool = True, progress: bool = True
) -> Gather[Any]:
    """Collect calls, which ``gather(...) >> compute`` runs at once.

    Parameters
    ----------
    *calls : Call
    stream : bool
        Whether ``>>`` returns an iterator, which yields results while others are still being computed, or a
        list.
    ordered : bool
        Whether the iterator yields results in the order of the calls, rather than as they finish. A list is
        always in order.
    progress : bool
        Whether waiting for a list shows a progress bar, on stderr and after a second, if there is a terminal
        or a notebook.

    Returns
    -------
    Gather

    Raises
    ------
    OperatorError
        An argument is not a call.

    Examples
    --------
    >>> gather(*(double(n) for n in range(100))) >> compute  # doctest: +SKIP
    """
    for call in calls:
        if not isinstance(call, Call):
            raise OperatorError(f"gather takes calls such as f(x), not {described(call)}{_instead(call)}.")
    return Gather(calls, stream, ordered, progress)


def _instead(value: object) -> str:
    """What to give to `gather` in the place of a value, where it can be guessed."""
    if isinstance(value, Function):
        return f": write {value.name}(...), with its arguments"
    if isinstance(value, Group):
        return ": write gather(f(x), g(y)), or (f(x) & g(y)) >> compute"
    if callable(getattr(value, "result", None)):
        return ": `client.gather(futures)` collects the results of futures"
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return ": unpack it, gather(*calls)"
    return ". Decorate f with @skyward_dask.function, and its calls are values"
