"""`collections`: the collections of a cluster, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed import Client

from skyward_dask.extension.collections.directory_messages import List, ask
from skyward_dask.extension.connection import checked, connected


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection.

    Attributes
    ----------
    name, kind : str
    options : dict
    hosts : tuple of str
        For each shard, the address of the worker it lives on.
    standby : tuple of str
        The workers of its standbys.
    lost : bool
        Whether a host has left, and had no standby in step: then every operation raises `CollectionLost`
        until `destroy()` is called.
    operations : int
        How many operations it has carried out.
    size : int
        The number of its keys, members or items.
    waiting : int
        The number of calls that are waiting.
    in_step : bool
        Whether each shard has a standby that has all that anybody was told, and would take over.
    since : float
        When a host or a standby has last changed, in seconds since the epoch.
    moves : int
        How often a standby has become the host: because the host was lost, or was to leave.
    seconds : float
        How long that took the last time, from when the scheduler knew; operations waited meanwhile.
    records : int
        The number of answers that are kept until their callers have said that they have come.
    nbytes, standby_nbytes : int
        About how many bytes it has, with its records, on its hosts; and on its standbys. Dask counts both as
        managed memory of the workers.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    hosts: tuple[str, ...]
    standby: tuple[str, ...]
    lost: bool
    operations: int
    size: int
    waiting: int
    in_step: bool = False
    since: float = 0.0
    moves: int = 0
    seconds: float = 0.0
    records: int = 0
    nbytes: int = 0
    standby_nbytes: int = 0


def collections(client: Client) -> dict[str, Collection]:
    """List the collections of the cluster.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    dict
        `Collection` by name. With an asynchronous client, an awaitable of it.

    Examples
    --------
    >>> collections(client)["seen"].size  # doctest: +SKIP
    3
    """
    return checked(client).sync(listed, client)  # type: ignore[no-any-return]  # or an awaitable


async def listed(client: Client) -> dict[str, Collection]:
    """As `collections`."""
    scheduler = await connected(client)
    return {each["name"]: _collection(each) for each in await ask(scheduler, List())}


def _collection(told: dict[str, Any]) -> Collection:
    return Collection(**{**told, "hosts": tuple(told["hosts"]), "standby": tuple(told["standby"])})
