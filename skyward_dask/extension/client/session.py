"""What an operator sends calls to: a client, with all its nodes or one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, ExitStack, nullcontext
from math import inf
from typing import Any

import distributed
from distributed import Client as Client
from distributed import Worker as DaskWorker
from distributed import as_completed, get_worker, worker_client

from skyward_dask.errors import BroadcastError, OperatorError
from skyward_dask.extension.client.progress_bar import progress_bar
from skyward_dask.extension.client.sending import Sent, send, send_to_each
from skyward_dask.extension.connection import connected
from skyward_dask.extension.registration import Nodes
from skyward_dask.extension.tracebacks import shortened

#: Seconds between two looks at the nodes of a cluster that is being resized.
_LOOK = 0.05


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


def is_in_task() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _outside_slot() -> AbstractContextManager[object]:
    """In a task: wait for other tasks without a slot, so that they can have it."""
    return worker_client() if is_in_task() else nullcontext()


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
        return CallFuture(self._send(call))

    def run(self, calls: Sequence[Sent], progress: bool = False) -> list[Any]:
        return self._gather([self._send(call) for call in calls], progress)

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
            results, errors = _results_and_errors(
                send_to_each(self.client, call, [node for node, _ in nodes])
            )
        if errors:
            raise _broadcast_error(call, nodes, errors, results) from next(iter(errors.values()))
        return list(results.values())

    def stream(self, calls: Sequence[Sent], ordered: bool) -> Iterator[Any]:
        # submitted now, not when the first result is asked for
        return self._results([self._send(call) for call in calls], ordered)

    def _results(self, futures: Sequence[distributed.Future[Any]], ordered: bool) -> Iterator[Any]:
        finished = None if ordered else as_completed(futures, loop=self.client.loop)
        for future in futures:
            is_there = future.done() if finished is None else finished.has_ready()
            with nullcontext() if is_there else _outside_slot(), shortened():
                result = (future if finished is None else next(finished)).result()
            yield result

    def _send(self, call: Sent) -> distributed.Future[Any]:
        return send(self.client, call, self._node)

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
