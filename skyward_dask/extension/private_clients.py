"""Every private name of distributed's clients and futures that the package uses; `private` has the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from distributed import Client, Future, Worker

T = TypeVar("T")


def send_to_scheduler(client: Client, message: dict[str, Any]) -> None:
    """Put a message into a client's stream to the scheduler, behind those that are in it; from any thread."""
    client._send_to_scheduler(message)


def disown(client: Client, refuse: Callable[..., Any]) -> None:
    """In a fork: have a client no longer be the default, and refuse calls that would wait for its loop."""
    client.status = "closed"
    client.sync = refuse  # type: ignore[method-assign]


def bind_futures(find: Callable[[], Client | None]) -> None:
    """From now on, in this process, have each future without a client look for one when it is first used.

    It doesn't look when it is created: specs of tasks carry futures as mere references. When it has found a
    client, the scheduler must be told that this client wants the key.
    """
    release = Future.release

    def client(self: Future[Any]) -> Client | None:
        if self._client is None and (found := find()) is not None:
            self._client = found
            send_to_scheduler(found, {"op": "client-desires-keys", "keys": [self.key]})
        self._bind_late()
        return self._client

    def release_if_bound(self: Future[Any]) -> None:
        if self._client is not None:
            release(self)  # type: ignore[no-untyped-call]

    Future.client = property(client)  # type: ignore[assignment]
    Future.release = release_if_bound  # type: ignore[method-assign]


def client_with(key: Any) -> Client | None:
    """A client of this process that holds a future of this key."""
    return next((client for client in list(Client._instances) if key in client.futures), None)


def client_extension(client: Client, name: str, make: Callable[[Client], T]) -> T:
    """An object of ours that lives as long as a client, created on first use."""
    found: T = client.extensions.get(name) or client.extensions.setdefault(name, make(client))
    return found


def stream_handlers(client: Client) -> dict[str, Callable[..., Any]]:
    """What a client does with the scheduler's messages, by their `op`."""
    return client._stream_handlers  # type: ignore[return-value]  # it is invariant in our functions' type


class _AtClose:
    """Looks like one of a client's periodic callbacks, which the client stops first of all when it closes."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.stop = function

    def start(self) -> None:
        """Do nothing: there is nothing to start."""


def at_close(client: Client, name: str, function: Callable[[], object]) -> None:
    """Have a function called, in any thread and maybe more than once, as a client begins to close."""
    client._periodic_callbacks[name] = _AtClose(function)  # type: ignore[assignment]


def is_of_a_worker(client: Client) -> bool:
    """Whether a worker has made the client, for all its tasks."""
    return client in Worker._initialized_clients
