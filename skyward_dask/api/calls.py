"""Calls as values: `function` makes them, operators run them on a `Compute`.

f(x) >> compute              run it, give the result
f(x) > compute               a concurrent.futures.Future
(f(x) & g(y)) >> compute     at once, a tuple
gather(*calls) >> compute    many, a list or an iterator
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from skyward_dask.config import parse_timeout
from skyward_dask.errors import OperatorError

P = ParamSpec("P")
T = TypeVar("T")


class Target(ABC):
    """What calls can be sent to."""

    @abstractmethod
    def start(self, call: Call[T]) -> Future[T]:
        """Send one call; doesn't wait."""

    @abstractmethod
    def run(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Run calls at once, and wait for their results, in order."""

    @abstractmethod
    def stream(self, calls: Sequence[Call[Any]], ordered: bool) -> Iterator[Any]:
        """Run calls at once, and give their results in order, or as they finish."""


class Function(Generic[P, T]):
    """A function whose calls are values: see `function`."""

    def __init__(self, inner: Callable[P, T]) -> None:
        self._inner = inner
        functools.update_wrapper(self, inner)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        return Call(self, args, kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it here and now, as an ordinary function."""
        return self._inner(*args, **kwargs)

    @property
    def name(self) -> str:
        """The function's own name."""
        return self._inner.__name__

    @property
    def is_coroutine(self) -> bool:
        """Whether it is an ``async def``, which runs on a worker's event loop."""
        return inspect.iscoroutinefunction(self._inner)

    def __repr__(self) -> str:
        return f"<sky.function {self._inner.__qualname__}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # by reference like any function of a module: the module's name stands for this object, not for the
        # inner function, which therefore can't be pickled by reference itself
        module, name = self._inner.__module__, self._inner.__qualname__
        if module != "__main__" and _found(module, name) is self:
            return name
        return Function, (self._inner,)


def _found(module: str, name: str) -> object:
    try:
        return attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):  # made in a function, or in a module that is gone
        return None


def function(inner: Callable[P, T]) -> Function[P, T]:
    """Make a function whose calls are values.

    Parameters
    ----------
    inner : callable

    Returns
    -------
    Function
        ``f(x)`` runs nothing and is a `Call`; ``f.local(x)`` runs it here.

    Examples
    --------
    >>> @function
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(4)
    double(4)
    >>> double.local(4)
    8
    """
    return Function(inner)


def _synchronous(operator: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise OperatorError(
        f"{operator} waits, and would stop the event loop that runs in this thread: use "
        "`await asyncio.wrap_future(f(x) > compute)`."
    )


def _target(operator: str, value: object) -> Target:
    if isinstance(value, Target):
        return value
    raise OperatorError(
        f"{operator} takes a skyward_dask.Compute on its right, not a {type(value).__name__}: "
        "`with skyward_dask.Compute() as compute: f(x) >> compute`."
    )


@dataclass(frozen=True, slots=True, eq=False)
class Call(Generic[T]):
    """One call of a `Function`, which hasn't run."""

    function: Function[..., T]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None

    def with_timeout(self, seconds: float | str) -> Call[T]:
        """The same call, which gets `TaskTimeout` if it runs longer; it needs process slots.

        Parameters
        ----------
        seconds : float or str
            A number, or text such as ``"30s"``.
        """
        return replace(self, timeout=parse_timeout(seconds))

    def __rshift__(self, compute: Target) -> T:
        """Run it on one node, and give its result."""
        target = _target(">>", compute)
        _synchronous(">>")
        result: T = target.run([self])[0]
        return result

    def __gt__(self, compute: Target) -> Future[T]:
        """Start it, and give a future."""
        return _target(">", compute).start(self)

    def __and__(self, other: Call[Any] | Group) -> Group:
        """Put it beside another, to run both at once."""
        return Group((self,)) & other

    def __repr__(self) -> str:
        arguments = [repr(value) for value in self.args]
        arguments += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.function.name}({', '.join(arguments)})"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Calls that run at once; ``group >> compute`` is a tuple of their results."""

    calls: tuple[Call[Any], ...]

    def with_timeout(self, seconds: float | str) -> Group:
        """The same calls, with this timeout for each: see `Call.with_timeout`."""
        return Group(tuple(call.with_timeout(seconds) for call in self.calls))

    def __and__(self, other: Call[Any] | Group) -> Group:
        if isinstance(other, Call):
            return Group((*self.calls, other))
        if isinstance(other, Group):
            return Group(self.calls + other.calls)
        raise OperatorError(
            f"& joins calls, not a call and a {type(other).__name__}. >> and > bind differently: write "
            "`(f(x) & g(y)) >> compute`, with the parentheses."
        )

    def __rshift__(self, compute: Target) -> tuple[Any, ...]:
        target = _target(">>", compute)
        _synchronous(">>")
        return tuple(target.run(self.calls))


@dataclass(frozen=True, slots=True, eq=False)
class Gather(Generic[T]):
    """Calls that run at once; ``gathered >> compute`` is what `gather` says."""

    calls: tuple[Call[Any], ...]
    stream: bool
    ordered: bool

    def with_timeout(self, seconds: float | str) -> Gather[T]:
        """The same calls, with this timeout for each: see `Call.with_timeout`."""
        return replace(self, calls=tuple(call.with_timeout(seconds) for call in self.calls))

    def __rshift__(self, compute: Target) -> T:
        target = _target(">>", compute)
        _synchronous(">>")
        calls = self.calls
        results: Any = target.stream(calls, self.ordered) if self.stream else target.run(calls)
        return results  # type: ignore[no-any-return]


@overload
def gather(*calls: Call[T], stream: Literal[False] = False, ordered: bool = True) -> Gather[list[T]]: ...
@overload
def gather(*calls: Call[T], stream: Literal[True], ordered: bool = True) -> Gather[Iterator[T]]: ...
def gather(*calls: Call[Any], stream: bool = False, ordered: bool = True) -> Gather[Any]:
    """Many calls, to be run at once by ``gather(...) >> compute``.

    Parameters
    ----------
    *calls : Call
    stream : bool
        Whether ``>>`` gives an iterator, which yields results while others are still computed; else a list.
    ordered : bool
        Whether the iterator follows the order of the calls, rather than that in which they finish. A list
        always does.

    Returns
    -------
    Gather

    Raises
    ------
    OperatorError
        Something is not a call.

    Examples
    --------
    >>> gather(*(double(n) for n in range(100))) >> compute  # doctest: +SKIP
    """
    for call in calls:
        if not isinstance(call, Call):
            raise OperatorError(
                f"gather takes calls of functions made by @skyward_dask.function, not {type(call).__name__}."
            )
    return Gather(calls, stream, ordered)
