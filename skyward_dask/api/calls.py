"""Calls as values: `function` makes them, operators run them on a `Compute`.

f(x) >> compute              run it, give the result
f(x) > compute               a concurrent.futures.Future
f(x) @ compute               run it on every node, a list
(f(x) & g(y)) >> compute     at once, a tuple
"""

from __future__ import annotations

import functools
import inspect
import reprlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Never, ParamSpec, TypeVar, TypeVarTuple, overload

from skyward_dask.api.mistakes import Uncalled, Unrun, not_joined, unrun_in
from skyward_dask.api.streaming import is_fed, streamed
from skyward_dask.api.targets import Destination, described, target_of, waiting_target
from skyward_dask.arguments import takes_only
from skyward_dask.config import parse_timeout
from skyward_dask.errors import OperatorError
from skyward_dask.extension.tracebacks import shortened

if TYPE_CHECKING:
    from skyward_dask.extension.streams.stream import Stream

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
Ts = TypeVarTuple("Ts")


#: What waits for several calls on an event loop.
TOGETHER = "asyncio.gather(*[asyncio.wrap_future(call > compute) for call in calls])"


class Function(Uncalled, Generic[P, T]):
    """A function whose calls are values: see `function`."""

    def __init__(self, inner: Callable[P, T], timeout: float | None = None) -> None:
        self._inner, self._timeout = inner, timeout
        functools.update_wrapper(self, inner)
        self.name: str = getattr(inner, "__name__", type(inner).__name__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        self._check(args, kwargs)
        return Call(self, args, kwargs, self._timeout)

    def decorated(self, decorator: Callable[[Callable[P, T]], Callable[P, T]]) -> Function[P, T]:
        """The same, with its inner function decorated."""
        return Function(decorator(self._inner), self._timeout)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function here, as an ordinary one."""
        return self._inner(*args, **kwargs)

    def _check(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Refuse here what would fail far away."""
        if self._signature is not None:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise OperatorError(f"{self.name}{self._signature}: {error}.") from None
        for value in (*args, *kwargs.values()):
            if (unrun := unrun_in(value)) is not None:
                raise OperatorError(
                    f"{unrun!r} is an argument of {self.name}, and hasn't run. Run it first, as in "
                    f"`x = g(...) >> compute`, and pass the result; or call g.local(...) inside {self.name}."
                )

    @functools.cached_property
    def _signature(self) -> inspect.Signature | None:
        try:
            # not that of a function that a decorator has wrapped: it may take other arguments
            return inspect.signature(self._inner, follow_wrapped=False)
        except (TypeError, ValueError):  # some builtins have none
            return None

    @property
    def inner(self) -> Callable[P, T]:
        """The ordinary function."""
        return self._inner

    @functools.cached_property
    def _streamed(self) -> dict[str, object]:
        return streamed(self._inner)

    def with_fed(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], feed: Callable[[Any], Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, those fed that are for parameters annotated as streams."""
        if not self._streamed or self._signature is None:
            return args, dict(kwargs)
        bound = self._signature.bind(*args, **kwargs)
        for name, kind in self._streamed.items():
            if name in bound.arguments and is_fed(kind, bound.arguments[name]):
                bound.arguments[name] = feed(bound.arguments[name])
        return bound.args, bound.kwargs

    def __repr__(self) -> str:
        return f"<sky.function {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # by reference, like any function of a module: its name there refers to this object, not to the inner
        # function, which therefore can't be pickled by reference itself
        module, name = (getattr(self._inner, each, "") for each in ("__module__", "__qualname__"))
        if module != "__main__" and _found(module, name) is self:
            return name
        return Function, (self._inner, self._timeout)


def _found(module: str, name: str) -> object:
    try:
        return attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):  # made in a function, or in a module that is gone
        return None


@overload
def function(inner: Callable[P, T], *, timeout: float | str | None = None) -> Function[P, T]: ...
@overload
def function(*, timeout: float | str | None = None) -> Callable[[Callable[P, T]], Function[P, T]]: ...
@takes_only(
    "Other limits are set by skyward_dask.options; retries, by compute.client.submit(f, x, retries=...)."
)
def function(inner: Any = None, *, timeout: float | str | None = None) -> Any:
    """Make a function whose calls are values.

    Parameters
    ----------
    inner : callable
    timeout : float or str, optional
        Seconds, or text such as ``"30s"``, for each call; needs process slots. `Call.with_timeout` overrides
        it for one call.

    Returns
    -------
    Function
        ``f(x)`` runs nothing and is a `Call`; ``f.local(x)`` runs it here. Without `inner`, a decorator.

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
    seconds = parse_timeout(timeout)
    if inner is None:
        return functools.partial(function, timeout=seconds)
    if not callable(inner):
        raise OperatorError(f"skyward_dask.function takes a function, not {described(inner)}.")
    return Function(inner, seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Call(Unrun, Generic[T_co]):
    """One call of a `Function`, which hasn't run."""

    function: Function[..., T_co]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None

    def with_timeout(self, seconds: float | str) -> Call[T_co]:
        """The same call with a time limit, after which it gets `TaskTimeout`; needs process slots.

        Parameters
        ----------
        seconds : float or str
            A number, or text such as ``"30s"``.
        """
        return replace(self, timeout=parse_timeout(seconds))

    # a function that yields is a stream; that of a Call[Any], which the first overload is for, is unknown
    @overload
    def __rshift__(self: Call[Never], compute: Destination) -> Any: ...
    @overload
    def __rshift__(self: Call[Iterator[U]], compute: Destination) -> Stream[U]: ...
    @overload
    def __rshift__(self: Call[AsyncIterator[U]], compute: Destination) -> Stream[U]: ...
    @overload
    def __rshift__(self, compute: Destination) -> T_co: ...
    def __rshift__(self, compute: Destination) -> Any:
        """Run the call on one node, and return its result."""
        with shortened():
            return waiting_target(">>", compute, "asyncio.wrap_future(f(x) > compute)").run([self])[0]

    @overload
    def __gt__(self: Call[Never], compute: Destination) -> Future[Any]: ...
    @overload
    def __gt__(self: Call[Iterator[U]], compute: Destination) -> Future[Stream[U]]: ...
    @overload
    def __gt__(self: Call[AsyncIterator[U]], compute: Destination) -> Future[Stream[U]]: ...
    @overload
    def __gt__(self, compute: Destination) -> Future[T_co]: ...
    def __gt__(self, compute: Destination) -> Any:
        """Start the call, and return a future."""
        return target_of(">", compute).start(self)

    @overload
    def __matmul__(self: Call[Never], compute: Destination) -> list[Any]: ...
    @overload
    def __matmul__(self: Call[Iterator[U]], compute: Destination) -> list[Stream[U]]: ...
    @overload
    def __matmul__(self: Call[AsyncIterator[U]], compute: Destination) -> list[Stream[U]]: ...
    @overload
    def __matmul__(self, compute: Destination) -> list[T_co]: ...
    def __matmul__(self, compute: Destination) -> list[Any]:
        """Run the call on every node of this moment; the results are in the order of `Compute.nodes`.

        Raises
        ------
        BroadcastError
            A node has failed, or has left before it answered.
        """
        with shortened():
            return waiting_target("@", compute, "asyncio.to_thread(lambda: f(x) @ compute)").broadcast(self)

    @overload
    def __and__(self, other: Call[U]) -> Group[T_co, U]: ...
    @overload
    def __and__(self, other: Group[*Ts]) -> Group[T_co, *Ts]: ...
    def __and__(self, other: Any) -> Any:
        """Combine it with another call, to run both at once."""
        return Group((self,)) & other

    def __repr__(self) -> str:
        arguments = [_brief.repr(value) for value in self.args]
        arguments += [f"{name}={_brief.repr(value)}" for name, value in self.kwargs.items()]
        return f"{self.function.name}({', '.join(arguments)})"


#: Arguments can be large.
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60


@dataclass(frozen=True, slots=True, eq=False)
class Group(Unrun, Generic[*Ts]):
    """Calls that run at once; ``group >> compute`` is a tuple of their results."""

    calls: tuple[Call[Any], ...]

    def with_timeout(self, seconds: float | str) -> Group[*Ts]:
        """The same calls, with this timeout for each: see `Call.with_timeout`."""
        return Group(tuple(call.with_timeout(seconds) for call in self.calls))

    @overload
    def __and__(self, other: Call[U]) -> Group[*Ts, U]: ...
    @overload
    def __and__(self, other: Group[*tuple[Any, ...]]) -> Group[*tuple[Any, ...]]: ...
    def __and__(self, other: Any) -> Any:
        if isinstance(other, Call):
            return Group((*self.calls, other))
        if isinstance(other, Group):
            return Group(self.calls + other.calls)
        raise not_joined(self.calls[0], other)

    def __rshift__(self, compute: Destination) -> tuple[*Ts]:
        with shortened():
            results: Any = tuple(waiting_target(">>", compute, TOGETHER).run(self.calls))
            return results  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[Call[Any]]:
        return iter(self.calls)

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.calls))})"
