"""How a handle reaches its collection: through a worker, through a slot's worker, or through a client.

A transport sends a call and returns a future of the answer. The caller owns what the call takes: it is the
run of a task wherever there is one, however the cluster was specified.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import cache, partial
from typing import Any, Protocol, cast

from distributed import Client, get_worker
from distributed import Worker as DaskWorker
from distributed.comm.addressing import resolve_address
from tornado.ioloop import IOLoop

from skyward_dask.errors import ConfigurationError, OperatorError
from skyward_dask.extension import private, private_clients
from skyward_dask.extension.child.task import worker_of_this_process
from skyward_dask.extension.child.worker_facade import ChildWorker
from skyward_dask.extension.collections.directory_messages import Fence, Fenced, ask, handler
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.links import Links, OnLoop
from skyward_dask.extension.collections.lookup import Unregistered, destroyed, find_at_scheduler
from skyward_dask.extension.collections.routes import Routes
from skyward_dask.extension.collections.switchboard import Switchboard
from skyward_dask.extension.collections.worker_collections import WorkerCollections
from skyward_dask.extension.connection import reach, refuse_closed
from skyward_dask.shared.asks import Ask, Pending, Route, Spec
from skyward_dask.shared.events import Caller
from skyward_dask.slots.aside import Tasks

#: Seconds in which the scheduler must recognise a client that has reconnected.
_RECONNECT = 10.0
#: Seconds between two checks whether it does.
_LOOK = 0.05


class Transport(Protocol):
    """How a handle reaches its collection."""

    def begin(self, spec: Spec, ask: Ask) -> Pending:
        """Send a call; doesn't wait."""

    def took(self, pending: Pending) -> None:
        """The caller is about to get the answer to a call that binds; called just before it does."""

    def withdraw(self, pending: Pending, expired: bool) -> None:
        """The caller gives up a call; if the call has timed out, the caller takes an answer on its way."""

    def destroy(self, spec: Spec) -> Future[None]:
        """End the collection; doesn't wait."""

    def is_on_loop(self) -> bool:
        """Whether the calling thread runs the loop that brings the answers: then it must not wait."""


class WorkerTransport:
    """For a task in a thread, a coroutine or an actor of a worker."""

    def __init__(self, worker: DaskWorker) -> None:
        self._worker = worker
        self._collections = WorkerCollections.of(worker)

    def begin(self, spec: Spec, ask: Ask) -> Pending:
        caller = self._collections.caller()
        if not caller.run:
            _refuse_without_owner(spec, ask)
        return self._collections.switchboard.begin(spec, ask, caller)

    def took(self, pending: Pending) -> None:
        self._collections.caller()  # raises if its run has ended meanwhile: then it owns nothing any more
        self._collections.switchboard.took(pending)

    def withdraw(self, pending: Pending, expired: bool) -> None:
        self._collections.switchboard.withdraw(pending, expired)

    def destroy(self, spec: Spec) -> Future[None]:
        return self._collections.destroy(spec)

    def is_on_loop(self) -> bool:
        return threading.get_ident() == self._worker.thread_id


class ClientTransport:
    """For a client's own process."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._loop = cast(IOLoop, client.loop)
        self._stream: Any = None
        self._connections = 0
        refuse_closed(client)
        scheduler: Any = client.scheduler
        routes = Routes(self._find)
        self._is_direct = bool(client.direct_to_workers)
        via = "" if self._is_direct else scheduler.address
        lost = (lambda _: routes.clear()) if via else routes.forget_worker
        links = Links("", Homes(), client.rpc, OnLoop(self._loop), via, on_lost=lost)
        self._switchboard = Switchboard(client.id, self._loop, routes, links, present=self._presented)
        private_clients.stream_handlers(client)[Fence.op] = handler(Fence, self._fence)
        self._confirming = Tasks()
        reason = "the client closes: calls that have no answer may have taken effect."
        private_clients.at_close(client, "skyward", partial(self._switchboard.close, reason))

    def begin(self, spec: Spec, ask: Ask) -> Pending:
        refuse_closed(self.client)  # a loop that has ended accepts calls, but never answers
        if private_clients.is_of_a_worker(self.client):
            _refuse_without_owner(spec, ask)
        return self._switchboard.begin(spec, ask, Caller(self.client.id, place=self.client.id))

    def took(self, pending: Pending) -> None:
        self._switchboard.took(pending)

    def withdraw(self, pending: Pending, expired: bool) -> None:
        self._switchboard.withdraw(pending, expired)

    def destroy(self, spec: Spec) -> Future[None]:
        refuse_closed(self.client)
        return destroyed(self._loop, partial(reach, self.client), spec, self._switchboard.destroyed)

    def is_on_loop(self) -> bool:
        return bool(self.client.asynchronous)

    # --- a client that has lost its connection makes another one, and is then another party ---------------

    def _presented(self, caller: Caller) -> Caller:
        return caller._replace(party=self._party())

    def _party(self) -> str:
        stream = self.client.scheduler_comm
        if stream is not None and stream is not self._stream:
            self._stream = stream
            self._connections += 1
        return f"{self.client.id}#{self._connections}"

    async def _find(self, spec: Spec, key: str) -> Route:
        deadline = self._loop.time() + _RECONNECT
        while True:
            scheduler = await reach(self.client)
            try:
                client = self.client.id
                return await find_at_scheduler(scheduler, spec, self._party(), client, self._is_direct, key)
            except Unregistered:  # the scheduler knows of the loss before the client does
                if self._loop.time() > deadline:
                    raise
            await asyncio.sleep(_LOOK)

    def _fence(self, message: Fence) -> None:
        """The directory wants no more answers taken from a home's old host; called by Dask."""
        self._confirming.spawn(self._confirm(message))

    async def _confirm(self, message: Fence) -> None:
        self._switchboard.fence(message.key, message.epoch)
        with suppress(OSError):  # the connection is lost: the scheduler doesn't wait for this client any more
            await ask(self.client.scheduler, Fenced(self.client.id, message.key, message.epoch))


def find_transport(client: Client | None = None) -> Transport:
    """The transport from here: the calling task's, if it runs in the client's cluster; else the client's.

    Raises
    ------
    ConfigurationError
        There is no transport.
    """
    worker = _worker_here()
    if worker is None or (client is not None and not _is_of_cluster(client, worker)):
        return _of_client(client or _current_client())
    return worker.collections if isinstance(worker, ChildWorker) else WorkerTransport(worker)


def _worker_here() -> ChildWorker | DaskWorker | None:
    """The worker of the calling task, also in another thread of the task's."""
    try:
        found: ChildWorker | DaskWorker = get_worker()
    except ValueError:
        return worker_of_this_process()
    return found


def _is_of_cluster(client: Client, worker: ChildWorker | DaskWorker) -> bool:
    scheduler: Any = getattr(client, "scheduler", None)
    return scheduler is not None and _resolved(scheduler.address) == _resolved(worker.scheduler.address)


@cache
def _resolved(address: str) -> str:
    with suppress(OSError, ValueError):
        return resolve_address(address)
    return address


def _current_client() -> Client:
    try:
        client: Client = Client.current()
    except ValueError:
        here = "in this thread, which is in no task's context" if private.has_workers() else "here"
        raise ConfigurationError(
            f"a collection lives in a cluster, and there is none {here}: call it in a task (in a thread of "
            "the task's: with asyncio.to_thread or contextvars.copy_context().run), create a "
            "dask.distributed.Client, open a skyward_dask.Compute, or pass client=."
        ) from None
    return client


def _of_client(client: Client) -> ClientTransport:
    """The client's transport: one for each client, because it has a connection."""
    if not isinstance(client, Client):
        raise ConfigurationError(f"client must be a dask.distributed.Client, not {client!r}.")
    return private_clients.client_extension(client, "skyward", ClientTransport)


def _refuse_without_owner(spec: Spec, ask: Ask) -> None:
    if ask.binds:
        raise OperatorError(
            f"{spec.kind} {spec.name!r} is used in a thread or a coroutine of a worker that doesn't belong "
            "to a task, so what it takes would have no owner and would never be released. Start it in its "
            "task's context, with asyncio.to_thread or contextvars.copy_context().run, or call it in the "
            "task itself."
        )
