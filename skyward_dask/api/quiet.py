"""`stdout`, `stderr` and `silent`: whose output of a function is kept."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeAlias, TypeVar

from skyward_dask.api.calls import Function
from skyward_dask.api.targets import described
from skyward_dask.arguments import takes_only
from skyward_dask.errors import ConfigurationError
from skyward_dask.extension.instance import InstanceInfo, instance_info
from skyward_dask.extension.printing import hidden

F = TypeVar("F", bound=Callable[..., Any])
#: Whose output is kept: the head's, that of the node with this number, or of those for which it is true.
Only: TypeAlias = Literal["head"] | int | Callable[[InstanceInfo], bool]

_INSTEAD = 'Write `@skyward_dask.{}(only="head")`; `only` may be the number of a node or a function, too.'


@takes_only(_INSTEAD.format("stdout"))
def stdout(*, only: Only) -> Callable[[F], F]:
    """Keep what a function prints to stdout on some nodes only; elsewhere it is dropped.

    Parameters
    ----------
    only : "head", int, or callable
        The head, the node with this number, or those for whose `InstanceInfo` the function returns true.

    Returns
    -------
    callable
        A decorator, for plain functions and for those of `function`, in either order.

    Raises
    ------
    ConfigurationError
        An argument is invalid.

    Examples
    --------
    >>> @function
    ... @stdout(only="head")
    ... def train(epochs: int) -> None:
    ...     print("only one node says so")

    Notes
    -----
    In a process slot this includes what C code and other processes write; in a thread slot and in a coroutine
    it is what the task itself prints, with Python. Outside a task everything is kept.
    """
    return functools.partial(_quiet, _Rule(frozenset({"stdout"}), _kept("stdout", only)))


@takes_only(_INSTEAD.format("stderr"))
def stderr(*, only: Only) -> Callable[[F], F]:
    """The same as `stdout`, for stderr: tracebacks and warnings go there, too.

    Parameters
    ----------
    only : "head", int, or callable
    """
    return functools.partial(_quiet, _Rule(frozenset({"stderr"}), _kept("stderr", only)))


def silent(function: F) -> F:
    """Drop all that a function prints, on every node, and outside tasks too.

    Examples
    --------
    >>> @function
    ... @silent
    ... def simulate(seed: int) -> float: ...
    """
    quiet: F = _quiet(_Rule(frozenset({"stdout", "stderr"})), function)
    return quiet


@dataclass(frozen=True)
class _Rule:
    """These streams are hidden, except where `keeps` is true."""

    streams: frozenset[str]
    keeps: Callable[[InstanceInfo], object] | None = None

    def hides(self) -> frozenset[str]:
        """What is hidden here; may ask the scheduler."""
        if self.keeps is not None:
            info = instance_info()
            if info is None or self.keeps(info):
                return frozenset()
        return self.streams


def _kept(name: str, only: object) -> Callable[[InstanceInfo], object]:
    if isinstance(only, str) and only == "head":
        return attrgetter("is_head")
    if isinstance(only, int) and not isinstance(only, bool) and only >= 0:
        return lambda info: info.node == only
    if callable(only):
        return only
    raise ConfigurationError(
        f"{name}: only must be 'head', the number of a node, or a function that takes an InstanceInfo, not "
        f"{only!r}."
    )


def _quiet(rule: _Rule, function: Any) -> Any:
    if isinstance(function, Function):
        return function.decorated(functools.partial(_quiet, rule))
    if not callable(function):
        raise ConfigurationError(
            f"what a function prints can be hidden, and {described(function)} is none: write the decorator "
            "above the function's definition."
        )
    quiet = next(make for fits, make in _KINDS if fits(function))(rule, function)
    functools.update_wrapper(quiet, function)
    with suppress(TypeError, ValueError):  # some builtins have none
        quiet.__signature__ = inspect.signature(function)
    return quiet


def _quiet_coroutine(rule: _Rule, function: Callable[..., Any]) -> Any:
    async def quiet(*args: Any, **kwargs: Any) -> Any:
        with hidden(await asyncio.to_thread(rule.hides)):
            return await function(*args, **kwargs)

    return quiet


def _quiet_generator(rule: _Rule, function: Callable[..., Any]) -> Any:
    def quiet(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        streams, steps = rule.hides(), function(*args, **kwargs)
        with closing(steps):
            while True:
                with hidden(streams):
                    try:
                        step = next(steps)
                    except StopIteration as end:
                        return end.value
                yield step

    return quiet


def _quiet_async_generator(rule: _Rule, function: Callable[..., Any]) -> Any:
    async def quiet(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        streams = await asyncio.to_thread(rule.hides)
        async with aclosing(function(*args, **kwargs)) as steps:
            while True:
                with hidden(streams):
                    try:
                        step = await anext(steps)
                    except StopAsyncIteration:
                        return
                yield step

    return quiet


def _quiet_call(rule: _Rule, function: Callable[..., Any]) -> Any:
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with hidden(rule.hides()):
            return function(*args, **kwargs)

    return quiet


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[_Rule, Any], Any]], ...] = (
    (inspect.iscoroutinefunction, _quiet_coroutine),
    (inspect.isgeneratorfunction, _quiet_generator),
    (inspect.isasyncgenfunction, _quiet_async_generator),
    (callable, _quiet_call),
)
