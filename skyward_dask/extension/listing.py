"""`collections`: what collections a cluster has, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed import Client

from skyward_dask.extension.introducing import connected


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection.

    Attributes
    ----------
    name, kind : str
    options : dict
    hosts : tuple of str
        For each shard the address of the worker that it lives on.
    standby : tuple of str
        The workers that would take over; there are none yet.
    lost : bool
        A host is gone: every operation raises `CollectionLost` until it is destroyed.
    operations : int
        How many were carried out.
    size : int
        Keys, members or items.
    waiting : int
        Calls that wait for something.
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


def collections(client: Client) -> dict[str, Collection]:
    """What collections there are.

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
    return client.sync(listed, client)  # type: ignore[no-any-return]  # or an awaitable


async def listed(client: Client) -> dict[str, Collection]:
    """As `collections`."""
    scheduler = await connected(client)
    return {each["name"]: _collection(each) for each in await scheduler.skyward_collections()}


def _collection(told: dict[str, Any]) -> Collection:
    return Collection(**{**told, "hosts": tuple(told["hosts"]), "standby": ()})
