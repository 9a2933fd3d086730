"""The way from a handle to its collections: through a worker, through a slot's worker, or through a client.

A transport has one verb: `begin` asks, and gives the answer to come.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Protocol, cast

from distributed import Client, get_worker
from distributed import Worker as DaskWorker
from tornado.ioloop import IOLoop

from skyward_dask.errors import ConfigurationError
from skyward_dask.extension import private
from skyward_dask.extension.attending import Attendant
from skyward_dask.extension.facade import ChildWorker
from skyward_dask.extension.finding import destroyed, find_at_scheduler
from skyward_dask.extension.switchboard import Switchboard
from skyward_dask.shared.asks import Ask, Pending, Spec
from skyward_dask.shared.calls import Caller


class Transport(Protocol):
    """How a handle asks."""

    def begin(self, spec: Spec, ask: Ask) -> Pending:
        """Ask; doesn't wait."""

    def took(self, pending: Pending) -> None:
        """The answer, whose question can be undone, has come to who asked; said just before they have it."""

    def give_up(self, spec: Spec, ask: Ask, pending: Pending) -> None:
        """Nobody waits for the answer any more: what it may still bring is given back."""

    def destroy(self, spec: Spec) -> Future[None]:
        """End the collection; doesn't wait."""

    def is_on_loop(self) -> bool:
        """Whether the thread that calls runs the loop that brings the answers: then it must not wait."""


class WorkerTransport:
    """From a task in a thread, a coroutine or an actor of a worker."""

    def __init__(self, worker: DaskWorker) -> None:
        self._worker = worker
        self._attendant = Attendant.of(worker)

    def begin(self, spec: Spec, ask: Ask) -> Pending:
        return self._attendant.switchboard.begin(spec, ask, self._attendant.caller())

    def took(self, pending: Pending) -> None:
        """Who asks lives as long as the worker."""

    def give_up(self, spec: Spec, ask: Ask, pending: Pending) -> None:
        self._attendant.switchboard.give_up(spec, ask, pending)

    def destroy(self, spec: Spec) -> Future[None]:
        switchboard = self._attendant.switchboard
        return destroyed(self._worker.loop, self._worker.scheduler, spec, switchboard.destroyed)

    def is_on_loop(self) -> bool:
        return threading.get_ident() == self._worker.thread_id


class ClientTransport:
    """From a client's own process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._caller = Caller(client.id)
        scheduler: Any = client.scheduler  # there, as long as the client is open
        self._loop = cast(IOLoop, client.loop)
        self._switchboard = Switchboard(
            "",
            self._loop,
            client.rpc,
            lambda spec: find_at_scheduler(scheduler, spec, client.id),
            via="" if client.direct_to_workers else scheduler.address,
        )

    def begin(self, spec: Spec, ask: Ask) -> Pending:
        # a loop that has ended takes calls and never answers
        if self._client.status not in ("running", "connecting", "newly-created"):
            raise ConfigurationError(
                f"{self._client} is {self._client.status}, and with it the way to {spec.kind} {spec.name!r}: "
                "use the collection while its client is open."
            )
        return self._switchboard.begin(spec, ask, self._caller)

    def took(self, pending: Pending) -> None:
        """Who asks lives as long as the client."""

    def give_up(self, spec: Spec, ask: Ask, pending: Pending) -> None:
        self._switchboard.give_up(spec, ask, pending)

    def destroy(self, spec: Spec) -> Future[None]:
        return destroyed(self._loop, self._client.scheduler, spec, self._switchboard.destroyed)

    def is_on_loop(self) -> bool:
        return bool(self._client.asynchronous)


def find_transport(client: Any = None) -> Transport:
    """The way from here: that of `client`, else of the task that calls, else of the current client.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    if client is not None:
        return _of_client(client)
    try:
        worker: object = get_worker()
    except ValueError:
        return _of_client(_current_client())
    if isinstance(worker, ChildWorker):
        return worker.collections
    assert isinstance(worker, DaskWorker)
    return WorkerTransport(worker)


def _current_client() -> Client:
    try:
        client: Client = Client.current()
    except ValueError:
        raise ConfigurationError(
            "a collection lives in a cluster, and there is none here: make a dask.distributed.Client, open a "
            "skyward_dask.Compute, or give client=."
        ) from None
    return client


def _of_client(client: Client) -> ClientTransport:
    """One for each client: it has a connection."""
    if not isinstance(client, Client):
        raise ConfigurationError(f"client={client!r} can't be meant: it is a dask.distributed.Client.")
    found = private.client_extension(client, "skyward", ClientTransport)
    assert isinstance(found, ClientTransport)
    return found
