"""Handles: how a program refers to collections. They can be pickled, and do no I/O before they are used.

An operation is written once, as a generator that yields requests to the collection's homes and is sent the
answers. `both` turns it into two methods: one that blocks, and its twin for an event loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from operator import index
from threading import TIMEOUT_MAX
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from skyward_dask.errors import ConfigurationError, OperatorError
from skyward_dask.extension.collections.transports import ClientTransport, Transport, find_transport
from skyward_dask.shared.asks import OPEN, Ask, Pending, Route, Spec

T = TypeVar("T")
P = ParamSpec("P")
H = TypeVar("H", bound="Handle")

#: What an operation yields: a request, several at once, or something that a user's function returned.
Step = Ask | list[Ask] | Awaitable[Any]
Steps = Generator[Step, Any, T]
#: The most characters that a name may have.
_LONGEST_NAME = 200
#: The greatest number of anything: it has to fit into 64 bits, as Dask's messages require.
MOST = 2**63 - 1


class Handle:
    """A named collection.

    Parameters
    ----------
    name : str
    client : distributed.Client, optional
        The client whose cluster it is in; defaults to the cluster of the calling task, or of the current
        client.
        What a task takes belongs to the task, whichever client is named.
    **options
        The options that were given.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, client: Any = None, **options: Any) -> None:
        given = {option: value for option, value in options.items() if value is not None}
        self._spec = Spec(self.kind, _checked_name(name), tuple(sorted(given.items())))
        self._client = client

    @property
    def name(self) -> str:
        return self._spec.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self._spec)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._spec.options)
        return f"sky.{self.kind}({self.name!r}{options})"

    def destroy(self) -> None:
        """End the collection: waiting callers get `CollectionLost`; the next operation creates a new one."""
        refuse_on_loop(self, "destroy", "await destroy_async()")
        transport(self).destroy(self._spec).result()

    async def destroy_async(self) -> None:
        """As `destroy`."""
        await asyncio.wrap_future(transport(self).destroy(self._spec))

    def _shards(self) -> Steps[int]:
        route: Route = yield OPEN
        return len(route.homes)


def _unpickled(cls: type[H], spec: Spec) -> H:
    return cls(spec.name, **dict(spec.options))


def transport(handle: Handle) -> Transport:
    """The handle's transport from here; a client that it has found once stays its client."""
    way = find_transport(handle._client)
    if isinstance(way, ClientTransport):
        handle._client = way.client
    return way


def refuse_on_loop(handle: Handle, operation: str, instead: str) -> Transport:
    """The transport from here; raises if waiting would block the loop that delivers the answer."""
    way = transport(handle)
    if way.is_on_loop():
        raise OperatorError(
            f"{operation} of {handle!r} waits, and would block the event loop that runs in this thread: use "
            f"`{instead}`."
        )
    return way


def one(ask: Ask) -> Steps[Any]:
    """An operation that is one request, whose answer is its value."""
    return (yield ask)


# --- from generators to methods --------------------------------------------------------------------------


def both(
    steps: Callable[Concatenate[H, P], Steps[T]], blocking: str = ""
) -> tuple[Callable[Concatenate[H, P], T], Callable[Concatenate[H, P], Coroutine[Any, Any, T]]]:
    """The two methods of an operation.

    Parameters
    ----------
    steps : callable
        Its name is an underscore and the operation's.
    blocking : str
        Name of the blocking method, if it differs: ``"__getitem__"``.
    """
    name = steps.__name__.lstrip("_")
    own, twin = blocking or name, f"{name}_async"

    @wraps(steps)
    def wait(self: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        way = refuse_on_loop(self, own, f"await {twin}(...)")
        return _run(self, way, steps(self, *args, **kwargs))

    @wraps(steps)
    async def wait_async(self: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run_async(self, steps(self, *args, **kwargs))

    # help() shows what the user gets, not the generator
    signature = inspect.signature(steps)
    returned = signature.return_annotation.removeprefix("Steps[").removesuffix("]")
    shown = signature.replace(return_annotation=returned)
    steps.__qualname__ = f"{steps.__qualname__.rpartition('.')[0]}.{own}"  # it is what Python's errors show
    for method, called in ((wait, own), (wait_async, twin)):
        method.__name__ = called
        method.__qualname__ = f"{steps.__qualname__.rpartition('.')[0]}.{called}"
        vars(method)["__signature__"] = shown
        del vars(method)["__wrapped__"]
    return wait, wait_async


Answering = Callable[[Transport, Spec, Step], Coroutine[Any, Any, Any]]


async def _drive(way: Transport, spec: Spec, steps: Steps[T], answer: Answering) -> T:
    """Give each step its answer, to the end."""
    try:
        step = next(steps)
        while True:
            try:
                found = await answer(way, spec, step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _run(handle: Handle, way: Transport, steps: Steps[T]) -> T:
    try:
        # its answers block and never await, so it needs no loop
        _drive(way, handle._spec, steps, _answer).send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("a blocking operation has awaited something")


async def _answer(way: Transport, spec: Spec, step: Step) -> Any:
    if isinstance(step, Ask):
        return _wait(way, step, way.begin(spec, step))
    if isinstance(step, list):
        asked = [(ask, way.begin(spec, ask)) for ask in step]
        return [_wait(way, ask, pending) for ask, pending in asked]
    if isinstance(step, Coroutine):
        step.close()
    raise OperatorError(
        "an `async def` function can't be called where nobody awaits it: use the _async twin."
    )


def _wait(way: Transport, ask: Ask, pending: Pending) -> Any:
    if not ask.binds:
        return pending.result()
    try:
        if not _is_done(pending, ask.timeout):
            way.withdraw(pending, expired=True)
        if pending.exception() is None:
            way.took(pending)
    except BaseException:  # KeyboardInterrupt: nobody has the answer, though it may have come
        way.withdraw(pending, expired=False)
        raise
    return pending.result()


def _is_done(pending: Pending, timeout: float | None) -> bool:
    try:
        pending.exception(timeout)
    except TimeoutError:  # the wait's: an operation's own would have been returned
        return False
    return True


async def _run_async(handle: Handle, steps: Steps[T]) -> T:
    return await _drive(transport(handle), handle._spec, steps, _answer_async)


async def _answer_async(way: Transport, spec: Spec, step: Step) -> Any:
    if isinstance(step, Ask):
        return await _wait_async(way, step, way.begin(spec, step))
    if isinstance(step, list):
        return await asyncio.gather(*(_wait_async(way, ask, way.begin(spec, ask)) for ask in step))
    return await step


async def _wait_async(way: Transport, ask: Ask, pending: Pending) -> Any:
    answer = asyncio.wrap_future(pending)
    if not ask.binds:
        return await answer
    try:
        done, _ = await asyncio.wait([answer], timeout=ask.timeout)
        if not done:
            way.withdraw(pending, expired=True)
            await asyncio.wait([answer])
        if answer.exception() is None:
            way.took(pending)
    except BaseException:
        way.withdraw(pending, expired=False)
        answer.cancel()  # its error, if it is one, is nobody's
        raise
    return answer.result()


# --- pages -------------------------------------------------------------------------------------------------


def pages(handle: Handle, page: Callable[[Handle, int, int], Steps[tuple[Sequence[T], Any]]]) -> Iterator[T]:
    """What `page(handle, shard, after)` gives, from all shards, one page after the other."""
    way = refuse_on_loop(handle, "iteration", "async for")
    for shard in range(_run(handle, way, handle._shards())):
        after: Any = 0
        while after is not None:
            entries, after = _run(handle, way, page(handle, shard, after))
            yield from entries


async def pages_async(
    handle: Handle, page: Callable[[Handle, int, int], Steps[tuple[Sequence[T], Any]]]
) -> Any:
    """As `pages`."""
    for shard in range(await _run_async(handle, handle._shards())):
        after: Any = 0
        while after is not None:
            entries, after = await _run_async(handle, page(handle, shard, after))
            for entry in entries:
                yield entry


# --- what callers give -------------------------------------------------------------------------------------


def _checked_name(name: object) -> str:
    if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME:
        with suppress(UnicodeEncodeError):
            return name.encode().decode()  # of a subclass of str, the text
    raise ConfigurationError(
        f"the name of a collection must be text of 1 to {_LONGEST_NAME} characters, each of which UTF-8 can "
        f"encode, not {name!r}."
    )


def checked_count(option: str, value: object, most: int = MOST) -> int:
    """A whole number from 1."""
    with suppress(TypeError):
        if not isinstance(value, bool) and 1 <= (count := index(value)) <= most:  # type: ignore[arg-type]
            return count
    raise ConfigurationError(f"{option} must be a whole number from 1 to {most:,}, not {value!r}.")


def checked_timeout(timeout: float | None) -> float | None:
    """Seconds from 0, or None for no limit."""
    if timeout is None:
        return None
    with suppress(TypeError, ValueError, OverflowError):
        if not isinstance(timeout, (bool, str)) and 0 <= (seconds := float(timeout)) <= TIMEOUT_MAX:
            return seconds
    raise ConfigurationError(
        f"timeout must be seconds from 0 to {TIMEOUT_MAX:,.0f}, or None for no limit, not {timeout!r}."
    )
