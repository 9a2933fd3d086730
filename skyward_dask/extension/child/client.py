"""The child's own client: one connection to the scheduler, made when a task first asks for it.

It runs on a loop in a thread of the child, as a worker's client runs on its worker's loop.
"""

from __future__ import annotations

import os
import threading
from typing import Any, NoReturn

import dask
from dask.utils import parse_timedelta
from distributed import Client
from distributed.client import default_client
from distributed.core import ConnectionPool
from distributed.security import Security
from distributed.utils import LoopRunner, in_async_call, sync

from skyward_dask.errors import ConfigurationError, WorkerUnreachable
from skyward_dask.extension import private_clients

#: Number of attempts to connect, if the scheduler's greeting doesn't come alone: arbitrary.
_GREETINGS = 5


class ChildClient:
    """Creates the client and its loop, each once.

    Parameters
    ----------
    scheduler : str
        The scheduler's address, as the worker knows it.
    security : Security
        The worker's; it gives the child the worker's credentials.

    Notes
    -----
    Thread-safe. distributed closes the client when the process ends.
    """

    def __init__(self, scheduler: str, security: Security) -> None:
        self.scheduler = scheduler
        self._security = security
        self._process = os.getpid()
        self._making = threading.Lock()
        self._runner: LoopRunner | None = None
        self._connections = ConnectionPool()
        self._client: Client | None = None
        os.register_at_fork(after_in_child=self._disown)

    def _disown(self) -> None:
        """Disable the client in a process that a task has forked: no thread runs its loop there."""
        if self._client is not None:
            private_clients.disown(self._client, _refuse)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            _refuse()

    @property
    def loop(self) -> Any:
        """The loop, which is started on first use."""
        self._check_process()
        with self._making:
            return self._running_loop()

    def _running_loop(self) -> Any:
        if self._runner is None:
            runner = LoopRunner(asynchronous=False)
            runner.start()
            sync(runner.loop, self._connections.start)
            self._runner = runner
        return self._runner.loop

    @property
    def rpc(self) -> ConnectionPool:
        """Connections for single calls to the scheduler and to workers; none is made before a call."""
        self._check_process()
        with self._making:
            self._running_loop()
            if not self._connections.connection_args:
                # not earlier: if credentials are in memory, this writes the private key to a temporary file
                self._connections.connection_args = self._security.get_connection_args("worker")
        return self._connections

    @property
    def present(self) -> Client | None:
        """The client, if there is one already."""
        client = self._client
        return client if client is not None and client.status in ("running", "connecting") else None

    def get(self, timeout: Any = None) -> Client:
        """The client; raises an OSError if the scheduler can't be reached within `timeout` seconds."""
        self._check_process()
        with self._making:
            if self.present is None:
                self._client = self._default() or self._connect(timeout)
            assert self._client is not None
            return self._client

    def _default(self) -> Client | None:
        """A client of the same scheduler that the task has made itself."""
        try:
            client = default_client()
        except ValueError:
            return None
        address = getattr(client.scheduler, "address", None)
        return client if address == self.scheduler else None

    def _connect(self, timeout: Any) -> Client:
        """Make the client.

        distributed asserts that the scheduler's greeting comes alone, but a message to all clients in the
        same two milliseconds ("cancelled-keys", for example) comes with it: then another connection is made.
        In a plain worker that is rare, as it makes only one client; here each child makes one.
        """
        if self.scheduler.startswith("inproc://"):
            raise ConfigurationError(
                f"the scheduler is at {self.scheduler}, which no other process can reach, and this task "
                "runs in a process slot. Give the cluster real addresses: LocalCluster(processes=False, "
                "protocol='tcp'); or run the task with `with skyward_dask.options(executor='thread')`."
            )
        if timeout is None:
            timeout = dask.config.get("distributed.comm.timeouts.connect")
        for _ in range(_GREETINGS - 1):
            try:
                return self._new_client(timeout)
            except AssertionError:
                default_client().close()  # it is only half made, but already the default
        return self._new_client(timeout)

    def _new_client(self, timeout: Any) -> Client:
        loop = self._running_loop()
        return Client(
            self.scheduler,
            loop=loop,
            security=self._security,
            set_as_default=True,
            asynchronous=in_async_call(loop),
            direct_to_workers=True,
            name="worker",
            timeout=parse_timedelta(timeout, "s"),
        )


def _refuse(*args: object, **kwargs: object) -> NoReturn:
    raise WorkerUnreachable(
        "this process was forked by a task, and a client doesn't survive a fork: its loop and connections "
        "belong to the task's own process. Use it there, or create a distributed.Client here."
    )
