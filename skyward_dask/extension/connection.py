"""A client's connection to its scheduler, checked and waited for."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from distributed import Client
from distributed.comm.core import connect

from skyward_dask.config import Worker
from skyward_dask.errors import ConfigurationError, InstallError
from skyward_dask.extension.registration import introduce

#: Seconds in which a client that has lost its connection must have another one, if the scheduler is alive: a
#: busy one takes a second or two.
_RECONNECT = 10.0
#: Seconds between two looks at a client's status, as nothing announces a change.
_LOOK = 0.05
#: Seconds to wait for whoever listens at the scheduler's address: if nobody does, the system says so at once.
_PROBE = 0.3


def checked(client: object) -> Client:
    """The client, if it is one.

    Raises
    ------
    ConfigurationError
        It is something else.
    """
    if isinstance(client, Client):
        return client
    advice = "make one with dask.distributed.Client(...)"
    if hasattr(client, "scheduler_address"):
        advice = "make one of the cluster: Client(cluster)"
    elif isinstance(client, Worker):
        advice = "it comes first: install(client, worker)"
    raise ConfigurationError(f"client must be a dask.distributed.Client, not {client!r}: {advice}.")


def refuse_closed(client: Client) -> None:
    """Raise an error if the client has no connection to a scheduler, and won't get one."""
    if client.scheduler is None or client.status not in ("running", "connecting", "newly-created"):
        raise ConfigurationError(
            f"the client is {client.status}, and has no connection to a scheduler: use it, and the "
            "collections of its cluster, after its start (`await` an asynchronous one) and before its end."
        )


async def reach(client: Client) -> Any:
    """The client's connection to the scheduler; if it is lost, waits until Dask has made another one.

    Raises
    ------
    OSError
        The scheduler doesn't answer: at once, if it has ended.
    """
    deadline = monotonic() + _RECONNECT
    scheduler: Any = client.scheduler
    while client.status == "connecting":
        if await _nobody_listens(client, scheduler.address) or monotonic() > deadline:
            raise OSError(f"the connection to the scheduler is lost, and {scheduler.address} doesn't answer")
        await asyncio.sleep(_LOOK)
    refuse_closed(client)
    return scheduler


async def _nobody_listens(client: Client, address: str) -> bool:
    """Whether the scheduler has ended, and nobody listens at its address; a busy one is only slow."""
    try:
        comm = await connect(address, timeout=_PROBE, **client.connection_args)
    except OSError as error:
        return not isinstance(error.__cause__, TimeoutError)
    comm.abort()
    return False


async def connected(client: Client) -> Any:
    """The client's connection to the scheduler, where our plugin is installed if need be."""
    try:
        scheduler = await reach(client)
        await introduce(scheduler)
    except OSError as error:
        raise InstallError(f"the scheduler can't be reached: {error}.") from error
    return scheduler
