"""The Dask half of `Compute`: a client, what was opened with it, and calls as Dask's futures."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager, nullcontext
from functools import partial
from math import inf
from typing import Any, Protocol
from uuid import uuid4

import distributed
from dask.base import annotate
from distributed import Client as Client
from distributed import Worker as DaskWorker
from distributed import as_completed, get_client, get_worker, worker_client

from skyward_dask.config import Worker
from skyward_dask.errors import BroadcastError, ConfigurationError, OperatorError
from skyward_dask.extension.client.control import install, installed, uninstall
from skyward_dask.extension.client.feed import Feeds, feed
from skyward_dask.extension.client.local_cluster import start_local_cluster
from skyward_dask.extension.client.options import options
from skyward_dask.extension.client.progress_bar import progress_bar
from skyward_dask.extension.connection import connected
from skyward_dask.extension.registration import ON_NODE, Nodes
from skyward_dask.extension.streams.stream import Stream
from skyward_dask.extension.tracebacks import shortened

#: Seconds between two looks at the nodes of a cluster that is being resized.
_LOOK = 0.05


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


class CallFuture(Future[Any]):
    """A `concurrent.futures.Future` over one of Dask's."""

    def __init__(self, source: distributed.Future[Any]) -> None:
        super().__init__()
        self._source = source
        source.add_done_callback(self._settle)

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled:
            self._source.cancel()
        return cancelled

    def _settle(self, source: distributed.Future[Any]) -> None:
        if not self.set_running_or_notify_cancel():
            return
        try:
            with shortened():
                result = source.result()
        except (CancelledError, distributed.client.FutureCancelledError) as error:
            self.set_exception(CancelledError(str(error)))
        except BaseException as error:  # the task's own, whatever it is
            self.set_exception(error)
        else:
            self.set_result(result)


def _results_and_errors(
    futures: Sequence[distributed.Future[Any]],
) -> tuple[dict[int, Any], dict[int, BaseException]]:
    results: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    for number, future in enumerate(futures):
        try:
            with shortened():
                results[number] = future.result()
        except Exception as error:  # the task's own, or its node has left
            errors[number] = error
    return results, errors


def is_on_loop_of_worker() -> bool:
    """Whether the calling thread runs a worker's event loop, as that of an ``async def`` task does."""
    try:
        worker = get_worker()
    except ValueError:
        return False
    return isinstance(worker, DaskWorker) and worker.thread_id == threading.get_ident()


def _is_in_task() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _outside_slot() -> AbstractContextManager[object]:
    """In a task: wait for other tasks without a slot, so that they can have it."""
    return worker_client() if _is_in_task() else nullcontext()


class Session:
    """What an operator sends calls to: a client, and all its nodes or one of them.

    Parameters
    ----------
    client : distributed.Client
    closing : ExitStack, optional
        Closes everything that was opened, including the client.
    node : str
        The address of the worker that all calls are for; empty for any.
    """

    def __init__(self, client: Client, closing: ExitStack | None = None, node: str = "") -> None:
        self.client = client
        self._closing = closing or ExitStack()
        self._node, self._adapts = node, False

    def close(self) -> None:
        self._closing.close()

    def is_on_loop(self) -> bool:
        """Whether the calling thread runs the client's loop, or its worker's: then it must not wait."""
        return bool(self.client.asynchronous) or is_on_loop_of_worker()

    def start(self, call: Sent) -> Future[Any]:
        return CallFuture(self._submit(call))

    def run(self, calls: Sequence[Sent], progress: bool = False) -> list[Any]:
        return self._gather([self._submit(call) for call in calls], progress)

    def map(self, function: Callable[..., Any], items: Sequence[list[Any]], progress: bool) -> list[Any]:
        return self._gather(self.client.map(function, *items, pure=False), progress)

    def _gather(self, futures: list[distributed.Future[Any]], progress: bool) -> list[Any]:
        with _outside_slot(), progress_bar(futures, progress):
            results: list[Any] = self.client.gather(futures)
        return results

    def broadcast(self, call: Sent) -> list[Any]:
        """Run a call on every node of this moment, and wait for all; one result for each node, in order."""
        with _outside_slot():
            nodes = self.nodes()
            if not nodes:
                raise OperatorError(
                    f"{call!r} has no node to run on: the cluster has no workers now. "
                    "client.wait_for_workers(n) waits for some."
                )
            results, errors = _results_and_errors(self._submit_to_each([node for node, _ in nodes], call))
        if errors:
            raise _broadcast_error(call, nodes, errors, results) from next(iter(errors.values()))
        return list(results.values())

    def stream(self, calls: Sequence[Sent], ordered: bool) -> Iterator[Any]:
        # submitted now, not when the first result is asked for
        return self._results([self._submit(call) for call in calls], ordered)

    def _results(self, futures: Sequence[distributed.Future[Any]], ordered: bool) -> Iterator[Any]:
        finished = None if ordered else as_completed(futures, loop=self.client.loop)
        for future in futures:
            is_there = future.done() if finished is None else finished.has_ready()
            with nullcontext() if is_there else _outside_slot(), shortened():
                result = (future if finished is None else next(finished)).result()
            yield result

    def _submit(self, call: Sent) -> distributed.Future[Any]:
        args, kwargs, fed = self._fed(call)
        with _annotated(call, self._node):
            future = self.client.submit(
                _runner(call.function), call.function, kwargs, *args, key=_key_of(call), pure=False
            )
        if fed:
            future.add_done_callback(partial(_end_unless_read, fed, Feeds.of(self.client)))
        return future

    def _submit_to_each(self, nodes: Sequence[str], call: Sent) -> list[distributed.Future[Any]]:
        """Send a call to each of these nodes, in one graph: arguments are pickled once."""
        fed: list[Any] = []
        call.function.with_fed(call.args, call.kwargs, fed.append)
        if fed:  # a stream has one reader: each node needs its own
            return [self.on(node)._submit(call) for node in nodes]
        place = {_key_of(call): node for node in nodes}
        arguments = [[value] * len(nodes) for value in (call.function, call.kwargs, *call.args)]
        with _annotated(call, place.get):
            return self.client.map(_runner(call.function), *arguments, key=list(place), pure=False)

    def _fed(self, call: Sent) -> tuple[tuple[Any, ...], dict[str, Any], list[Stream[Any]]]:
        """The arguments, streams in the place of those that are fed; and these streams."""
        fed: list[Stream[Any]] = []

        def feeding(value: Any) -> Any:
            if isinstance(value, Stream | distributed.Future):
                return value
            fed.append(feed(value, self.client))
            return fed[-1]

        return *call.function.with_fed(call.args, call.kwargs, feeding), fed

    # --- its nodes ----------------------------------------------------------------------------------------

    def nodes(self) -> list[tuple[str, str]]:
        """The address and the host of each node, in the order in which they joined."""
        found: Nodes = self.client.sync(_nodes, self.client)
        return [(address, host) for address, host, _ in found if self._node in ("", address)]

    def on(self, node: str) -> Session:
        """A session for one node alone."""
        return Session(self.client, node=node)

    def resize(self, fewest: int, most: int, timeout: float | None) -> None:
        """Change the number of nodes, and wait until they are there; they adapt if there is a choice."""
        end = time.monotonic() + (inf if timeout is None else timeout)
        cluster: Any = self.client.cluster
        if not hasattr(cluster, "scale"):
            raise OperatorError(
                "this Compute has the address of a cluster, and can't change its nodes: start or stop its "
                "workers, or open a Compute with a Dask cluster object."
            )
        self._adapts = self._adapts or most > fewest
        if self._adapts:
            cluster.adapt(minimum=fewest, maximum=most)
        else:
            cluster.scale(most)
        while not fewest <= (count := len(self.nodes())) <= most:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"the cluster has {count} nodes {timeout:g} s after it was asked for {fewest} to {most}; "
                    "it goes on in the background. Its log may say what workers wait for."
                )
            time.sleep(_LOOK)


async def _nodes(client: Client) -> Nodes:
    found: Nodes = await (await connected(client)).skyward_nodes()
    return found


def _broadcast_error(
    call: Sent, nodes: Sequence[tuple[str, str]], errors: dict[int, BaseException], results: dict[int, Any]
) -> BroadcastError:
    failed = "; ".join(f"node {n} ({nodes[n][0]}): {error!r}" for n, error in errors.items())
    return BroadcastError(
        f"{call!r} failed on {len(errors)} of {len(nodes)} nodes: {failed}. The others' results are in "
        ".results, by number of the node, and the errors in .errors.",
        errors,
        results,
    )


def current_session() -> Session:
    """For ``f(x) >> skyward_dask`` where no `Compute` is open: the current client's.

    Raises
    ------
    OperatorError
        There is none.
    """
    find = get_client if _is_in_task() else Client.current
    try:
        return Session(find())
    except ValueError:
        raise OperatorError(
            "nothing is open that the call could be sent to: open a skyward_dask.Compute, or create a "
            "dask.distributed.Client, first."
        ) from None


def _end_unless_read(fed: list[Stream[Any]], feeds: Feeds, future: distributed.Future[Any]) -> None:
    """A call has ended: it reads no more, unless it is a stream itself."""
    if future.status != "finished" or future.type is not Stream:
        for stream in fed:
            feeds.end(stream)


def open_session(nodes: int | tuple[int, int], worker: Worker | None, cluster: object | None) -> Session:
    """Start a local cluster, or connect to an existing one; if that fails, nothing stays open."""
    with ExitStack() as stack:
        if cluster is None:
            client = start_local_cluster(nodes, Worker.from_config() if worker is None else worker, stack)
        else:
            client = stack.enter_context(_connected(cluster))
            if worker is not None:
                _lend(client, worker, stack)
        stack.enter_context(client.as_current())  # collections that are opened in the block find it
        return Session(client, stack.pop_all())


def check_cluster(cluster: object) -> None:
    """Refuse anything that is neither a cluster nor an address."""
    if not isinstance(cluster, str) and not isinstance(getattr(cluster, "scheduler_address", None), str):
        hint = ": a Client's is client.scheduler.address" if isinstance(cluster, Client) else ""
        raise ConfigurationError(
            f"cluster must be a Dask cluster or the address of a scheduler, not {cluster!r}{hint}."
        )


def _connected(cluster: Any) -> Client:
    if getattr(cluster, "asynchronous", False):
        raise ConfigurationError(
            "this thread runs the event loop of cluster, and opening a Compute waits for it: open it in "
            "another thread, or use an asynchronous Client instead."
        )
    client: Client = Client.__new__(Client)
    try:
        Client.__init__(client, cluster, set_as_default=False)
    except BaseException as error:
        client.close()  # otherwise the interpreter waits a minute for it at exit
        if isinstance(error, ValueError):
            raise ConfigurationError(
                f"cluster={cluster!r} is not the address of a scheduler: {error}. A valid one is "
                "'tcp://10.0.0.5:8786'."
            ) from None
        raise
    return client


def _lend(client: Client, worker: Worker, stack: ExitStack) -> None:
    """Change the slots of a cluster that isn't ours, and restore them at the end."""
    previous = installed(client)
    install(client, worker)
    if previous is None:
        stack.callback(uninstall, client)
    else:
        stack.callback(install, client, previous)
