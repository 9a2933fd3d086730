"""Targets: what calls can be sent to, by an operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from skyward_dask.errors import OperatorError

if TYPE_CHECKING:
    from skyward_dask.api.calls import Call

T = TypeVar("T")


class Target(ABC):
    """What calls can be sent to."""

    @abstractmethod
    def is_on_loop(self) -> bool:
        """Whether the thread that calls runs the loop that brings the results: then it must not wait."""

    @abstractmethod
    def start(self, call: Call[T]) -> Future[T]:
        """Send one call; doesn't wait."""

    @abstractmethod
    def run(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """Run calls at once, and wait for their results, in order."""

    @abstractmethod
    def stream(self, calls: Sequence[Call[Any]], ordered: bool) -> Iterator[Any]:
        """Run calls at once, and give their results in order, or as they finish."""

    if not TYPE_CHECKING:  # there, they are errors already

        def _refuse(self, other: object) -> NoReturn:
            raise OperatorError(
                f">> and > take a call on their left, not {described(other)}: decorate f with "
                "@skyward_dask.function, and f(x) is one. compute.client.submit(f, x) takes plain functions."
            )

        __rrshift__ = __lt__ = _refuse


def target_of(operator: str, value: object) -> Target:
    if isinstance(value, Target):
        return value
    raise OperatorError(
        f"{operator} takes an open skyward_dask.Compute on its right, not {described(value)}: write `with "
        f"skyward_dask.Compute() as compute: f(x) {operator} compute`. Other targets, such as a Client, are "
        "not supported yet."
    )


def waiting_target(value: object) -> Target:
    target = target_of(">>", value)
    if target.is_on_loop():
        raise OperatorError(
            ">> waits, and would block the event loop of this thread, which has to deliver the result: use "
            "`await asyncio.wrap_future(f(x) > compute)`."
        )
    return target


def described(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
