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
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Never, NoReturn, ParamSpec, TypeVar, TypeVarTuple, overload

from skyward_dask.api.streaming import is_fed, streamed
from skyward_dask.api.targets import Destination, described, target_of, waiting_target
from skyward_dask.arguments import takes_only
from skyward_dask.config import parse_timeout
from skyward_dask.errors import OperatorError
from skyward_dask.extension.tracebacks import shortened
from skyward_dask.extension.unrun import NotRun

if TYPE_CHECKING:
    from skyward_dask.extension.streams.stream import Stream

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
Ts = TypeVarTuple("Ts")


#: What waits for several calls on an event loop.
TOGETHER = "asyncio.gather(*[asyncio.wrap_future(call > compute) for call in calls])"


class Function(Generic[P, T]):
    """A function whose calls are values: see `function`."""

    def __init__(self, inner: Callable[P, T], timeout: float | None = None) -> None:
        self._inner, self._timeout = inner, timeout
        functools.update_wrapper(self, inner)

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
            if (unrun := _unrun_in(value)) is not None:
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
    def name(self) -> str:
        """The function's own name."""
        return getattr(self._inner, "__name__", type(self._inner).__name__)

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

    if not TYPE_CHECKING:  # there, they are errors already

        def _refuse(self, other: object) -> NoReturn:
            raise _uncalled(self)

        __rshift__ = __gt__ = __matmul__ = __and__ = _refuse
        __rrshift__ = __lt__ = __rmatmul__ = __rand__ = _refuse

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a function of skyward_dask has no {name!r}: write `f(x) >> compute` to run it, "
                "`f(x) > compute` for a future, `gather(*[f(x) for x in items]) >> compute` to map it."
            )

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


def _uncalled(function: Function[..., Any]) -> OperatorError:
    name = function.name
    return OperatorError(f"{name} is a function, and operators take its calls: write {name}(...).")


class Unrun(NotRun):
    """A call, or several: mistakes with operators are reported here."""

    __slots__ = ()

    if not TYPE_CHECKING:  # there, they are errors already

        def __bool__(self) -> NoReturn:
            raise OperatorError(
                f"{self!r} hasn't run, so it is neither true nor false: test its result, `f(x) >> compute`."
            )

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a call has no {name!r}, as it hasn't run: write `f(x) >> compute` for its result, "
                "`f(x) > compute` for a future."
            )

        def __await__(self) -> NoReturn:
            raise OperatorError("a call can't be awaited: write `await asyncio.wrap_future(f(x) > compute)`.")

        def _reversed(self, other: object) -> NoReturn:
            raise OperatorError(f"the call goes on the left: write `{self!r} >> compute`.")

        __rrshift__ = __lt__ = __rmatmul__ = _reversed

        def __matmul__(self, other: object) -> NoReturn:
            raise OperatorError(
                "@ sends a single call to every node: write `[call @ compute for call in c]`."
            )

        def __gt__(self, other: object) -> NoReturn:
            raise OperatorError("> starts a single call: write `[call > compute for call in calls]`.")

        def __and__(self, other: object) -> NoReturn:
            raise _not_joined(self, other)

        def __rand__(self, other: object) -> NoReturn:
            raise _not_joined(other, self)


def _not_joined(left: object, right: object) -> OperatorError:
    for side in (left, right):
        if isinstance(side, Function):
            return _uncalled(side)
    return OperatorError(
        f"& joins calls, not {described(left)} and {described(right)}. >> and > bind differently: write "
        "`(f(x) & g(y)) >> compute`, with the parentheses."
    )


def _unrun_in(value: object) -> Unrun | None:
    """This value if it is a call, or a call in it, if it is a list, a tuple, a set or a dict."""
    if isinstance(value, Unrun):
        return value
    values: Iterable[object] = ()
    if isinstance(value, dict):
        values = value.values()
    elif isinstance(value, list | tuple | set):
        values = value
    return next((each for each in values if isinstance(each, Unrun)), None)


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
        raise _not_joined(self.calls[0], other)

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
