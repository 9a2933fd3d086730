"""How a call becomes a task of Dask's, or one for each node."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from dask.base import annotate
from distributed import Client, Future

from skyward_dask.extension.client.feed import Feeds, feed
from skyward_dask.extension.client.options import options
from skyward_dask.extension.registration import ON_NODE
from skyward_dask.extension.streams.stream import Stream


class Runnable(Protocol):
    """The function of a call; it can be pickled."""

    @property
    def name(self) -> str: ...

    @property
    def inner(self) -> Callable[..., Any]: ...

    def local(self, *args: Any, **kwargs: Any) -> Any: ...

    def with_fed(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], feed: Callable[[Any], Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]: ...


class Sent(Protocol):
    """A call, as `skyward_dask.api` makes it."""

    @property
    def function(self) -> Runnable: ...

    @property
    def args(self) -> tuple[Any, ...]: ...

    @property
    def kwargs(self) -> Mapping[str, Any]: ...

    @property
    def timeout(self) -> float | None: ...


# keyword arguments come in a dict of their own: `Client.submit` takes `key`, `workers`, … for itself
def _run(function: Runnable, kwargs: dict[str, Any], *args: Any) -> Any:
    return function.local(*args, **kwargs)


async def _run_coroutine(function: Runnable, kwargs: dict[str, Any], *args: Any) -> Any:
    return await function.local(*args, **kwargs)


def _yield(function: Runnable, kwargs: dict[str, Any], *args: Any) -> Generator[Any, None, Any]:
    return (yield from function.local(*args, **kwargs))


async def _yield_on_loop(function: Runnable, kwargs: dict[str, Any], *args: Any) -> AsyncIterator[Any]:
    async with aclosing(function.local(*args, **kwargs)) as items:
        async for item in items:
            yield item


def _runner(function: Runnable) -> Callable[..., Any]:
    """What calls a function in a worker: of the same kind as the function, so it runs in the same place."""
    kinds: dict[Callable[[object], bool], Callable[..., Any]] = {
        inspect.iscoroutinefunction: _run_coroutine,
        inspect.isgeneratorfunction: _yield,
        inspect.isasyncgenfunction: _yield_on_loop,
    }
    return next((runner for is_so, runner in kinds.items() if is_so(function.inner)), _run)


def _key_of(call: Sent) -> str:
    return f"{call.function.name}-{uuid4().hex}"


@contextmanager
def _annotated(call: Sent, node: str | Callable[[str], str | None]) -> Iterator[None]:
    """In the block: the call's own limit, and the node that its tasks are for, maybe by their keys."""
    with (
        options(timeout=call.timeout) if call.timeout is not None else nullcontext(),
        annotate(**{"workers": node, ON_NODE: node}) if node else nullcontext(),
    ):
        yield


def send(client: Client, call: Sent, node: str = "") -> Future[Any]:
    """Submit a call: for the node with this address, or for any."""
    args, kwargs, fed = _fed(client, call)
    with _annotated(call, node):
        future = client.submit(
            _runner(call.function), call.function, kwargs, *args, key=_key_of(call), pure=False
        )
    if fed:
        future.add_done_callback(partial(_end_unless_read, fed, Feeds.of(client)))
    return future


def send_to_each(client: Client, call: Sent, nodes: Sequence[str]) -> list[Future[Any]]:
    """Submit a call for each of these nodes, in one graph: arguments are pickled once."""
    fed: list[Any] = []
    call.function.with_fed(call.args, call.kwargs, fed.append)
    if fed:  # a stream has one reader: each node needs its own
        return [send(client, call, node) for node in nodes]
    place = {_key_of(call): node for node in nodes}
    arguments = [[value] * len(nodes) for value in (call.function, call.kwargs, *call.args)]
    with _annotated(call, place.get):
        return client.map(_runner(call.function), *arguments, key=list(place), pure=False)


def _fed(client: Client, call: Sent) -> tuple[tuple[Any, ...], dict[str, Any], list[Stream[Any]]]:
    """The arguments, streams in the place of those that are fed; and these streams."""
    fed: list[Stream[Any]] = []

    def feeding(value: Any) -> Any:
        if isinstance(value, Stream | Future):
            return value
        fed.append(feed(value, client))
        return fed[-1]

    return *call.function.with_fed(call.args, call.kwargs, feeding), fed


def _end_unless_read(fed: list[Stream[Any]], feeds: Feeds, future: Future[Any]) -> None:
    """A call has ended: it reads no more, unless it is a stream itself."""
    if future.status != "finished" or future.type is not Stream:
        for stream in fed:
            feeds.end(stream)
