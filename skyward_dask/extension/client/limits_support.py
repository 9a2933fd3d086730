"""Checks that a cluster has slots that can enforce the limits of `options`: without them they are ignored."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress

from distributed import Client
from distributed.worker import get_worker

from skyward_dask.errors import ConfigurationError
from skyward_dask.extension import private_clients
from skyward_dask.extension.connection import connected

_TEXT = (
    "options(timeout=..., memory_limit=...) has no effect here, as no worker of this cluster has "
    "skyward_dask slots: call skyward_dask.install(client, Worker(executor='process')) first, or start "
    "the workers with --preload skyward_dask."
)


class _Seen:
    """What is known about a client's cluster."""

    has_slots = warned = False


def require_slots() -> None:
    """Refuse limits if the current client's cluster has no slots; in a thread that can't wait, warn once.

    Raises
    ------
    ConfigurationError
        No worker of the cluster has slots.
    """
    client = _current_client()
    if client is None:
        return
    seen = private_clients.client_extension(client, "skyward-slots-there", lambda _: _Seen())
    if seen.has_slots or seen.warned:
        return
    if client.asynchronous or _is_its_loop(client):
        seen.warned = True
        client.loop.add_callback(_warn_if_missing, client, seen)  # type: ignore[union-attr]
    elif client.sync(_look, client, seen) is False:
        raise ConfigurationError(_TEXT)


def _current_client() -> Client | None:
    with suppress(ValueError):  # this task has reached a slot, and what it submits goes the same way
        get_worker()
        return None
    with suppress(ValueError):
        return Client.current()  # type: ignore[no-any-return]
    return None


def _is_its_loop(client: Client) -> bool:
    try:
        return asyncio.get_running_loop() is client.loop.asyncio_loop  # type: ignore[union-attr]
    except RuntimeError:
        return False


async def _look(client: Client, seen: _Seen) -> bool | None:
    scheduler = await connected(client)
    found: bool | None = await scheduler.skyward_has_slots()
    seen.has_slots = bool(found)
    return found


async def _warn_if_missing(client: Client, seen: _Seen) -> None:
    with suppress(Exception):  # whoever submits a task to such a cluster gets the error there
        if await _look(client, seen) is False:
            warnings.warn(_TEXT, stacklevel=1)
