"""Targets: what calls can be sent to, by an operator."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from skyward_dask.errors import OperatorError
from skyward_dask.extension.client.opening import current_session
from skyward_dask.extension.client.session import Client, Session
from skyward_dask.extension.connection import refuse_closed

if TYPE_CHECKING:
    from skyward_dask.api.calls import Call

T = TypeVar("T")


#: The innermost open `Compute` of this context.
innermost: ContextVar[Target | None] = ContextVar("skyward_compute", default=None)


class Target(ABC):
    """What calls can be sent to."""

    @property
    @abstractmethod
    def _open(self) -> Session:
        """The session that sends them."""

    def is_on_loop(self) -> bool:
        """Whether the thread that calls runs the loop that brings the results: then it must not wait."""
        return self._open.is_on_loop()

    def start(self, call: Call[T]) -> Future[T]:
        """Send one call; doesn't wait."""
        return self._open.start(call)

    def run(self, calls: Sequence[Call[Any]], progress: bool = False) -> list[Any]:
        """Run calls at once, and wait for their results, in order."""
        return self._open.run(calls, progress)

    def broadcast(self, call: Call[T]) -> list[T]:
        """Run a call on every node, and wait for the results, in the order of the nodes."""
        return self._open.broadcast(call)

    def stream(self, calls: Sequence[Call[Any]], ordered: bool) -> Iterator[Any]:
        """Run calls at once, and give their results in order, or as they finish."""
        return self._open.stream(calls, ordered)

    if not TYPE_CHECKING:  # there, they are errors already

        def _refuse(self, other: object) -> NoReturn:
            raise OperatorError(
                f">> and > take a call on their left, not {described(other)}: decorate f with "
                "@skyward_dask.function, and f(x) is one. compute.client.submit(f, x) takes plain functions."
            )

        __rrshift__ = __lt__ = __rmatmul__ = _refuse

        def _refuse_other_target(self, other: object) -> Any:
            # of two objects of one class, Python asks the one on the left alone
            return self._refuse(self) if isinstance(other, Target) else NotImplemented

        __rshift__ = __gt__ = __matmul__ = _refuse_other_target


class SessionTarget(Target):
    """A client."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def _open(self) -> Session:
        return self._session


#: What stands on the right of an operator; a module is this package.
Destination: TypeAlias = Target | Client | ModuleType


def target_of(operator: str, value: object) -> Target:
    if isinstance(value, Target):
        return value
    if isinstance(value, Client):
        refuse_closed(value)
        return SessionTarget(Session(value))
    if value is sys.modules["skyward_dask"]:
        return innermost.get() or SessionTarget(current_session())
    raise OperatorError(
        f"{operator} takes an open skyward_dask.Compute on its right, one of its nodes, a Client, or the "
        f"module skyward_dask, not {described(value)}: write `with skyward_dask.Compute() as compute: f(x) "
        f"{operator} compute`."
    )


def waiting_target(operator: str, value: object, instead: str) -> Target:
    """What is on the right of an operator that waits; `instead` is what to write on an event loop."""
    target = target_of(operator, value)
    refuse_on_loop(target, operator, instead)
    return target


def refuse_on_loop(target: Target, what: str, instead: str) -> None:
    if target.is_on_loop():
        raise OperatorError(
            f"{what} waits, and would block the event loop of this thread, which has to deliver the result: "
            f"write `await {instead}`."
        )


def described(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
