"""The directory, in the scheduler: which collections there are, and where they live.

`parties` knows who uses them, and `placement` creates their homes on workers.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from distributed import Scheduler

from skyward_dask.errors import CollectionConflict, CollectionLost
from skyward_dask.extension.collections.directory_messages import (
    Destroy,
    List,
    Open,
    Report,
    as_operation,
    handler,
)
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.links import Links, OnLoop
from skyward_dask.extension.scheduler.parties import Parties
from skyward_dask.extension.scheduler.placement import Placement
from skyward_dask.shared.asks import Route, Spec


@dataclass(slots=True)
class _Entry:
    """A collection; `lost` says why it can't be used any more."""

    name: str
    route: Route
    lost: str = ""


class Directory:
    """The collections of a cluster.

    Parameters
    ----------
    scheduler : distributed.Scheduler

    Notes
    -----
    Used on the scheduler's loop only.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._entries: dict[str, _Entry] = {}
        # each lock lives as long as somebody creates or destroys a collection of that name
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._parties = Parties(scheduler)
        self._placement = Placement(scheduler, self._parties)
        links = Links(
            scheduler.address,
            Homes(),
            scheduler.rpc,
            OnLoop(scheduler.loop),
            is_there=self._placement.is_there,
        )
        scheduler.handlers["skyward_wire"] = links.accept
        for kind, take in ((Open, self._open), (Destroy, self._destroy), (List, self._list)):
            scheduler.handlers[kind.op] = handler(kind, take)

    # --- open and destroy --------------------------------------------------------------------------------

    async def _open(self, message: Open) -> bytes:
        return await _answer(self._open_for(pickle.loads(message.spec), message.party, message.client))

    async def _open_for(self, spec: Spec, party: str, client: str) -> Route:
        self._parties.register(party, client)
        route = await self._found(spec)
        await self._parties.introduce(party, self._parties.hosts([route]))
        return route

    async def _found(self, spec: Spec) -> Route:
        if spec.name not in self._entries:  # without the name's lock, so that all callers wait at once
            await self._placement.wait_for_a_worker()
        async with self._making.setdefault(spec.name, asyncio.Lock()):
            entry = self._entries.get(spec.name)
            if entry is None:
                entry = self._entries[spec.name] = _Entry(spec.name, await self._placement.make(spec))
        if entry.lost:
            raise CollectionLost(entry.lost)
        if difference := spec.differs(entry.route.kind, entry.route.options):
            raise CollectionConflict(
                f"the collection {spec.name!r} exists, and {difference}: open it as that, use another name, "
                "or destroy() it."
            )
        return entry.route

    async def _destroy(self, message: Destroy) -> bytes:
        return await _answer(self._end(pickle.loads(message.spec)))

    async def _end(self, spec: Spec) -> None:
        """End a collection; does nothing if there is none of that name."""
        async with self._making.setdefault(spec.name, asyncio.Lock()):
            entry = self._entries.get(spec.name)
            if entry is None:
                return
            if entry.route.kind != spec.kind:
                raise CollectionConflict(f"{spec.name!r} is a {entry.route.kind}, not a {spec.kind}.")
            del self._entries[spec.name]
            await self._placement.end(entry.route)

    # --- who has left ------------------------------------------------------------------------------------

    def remove_worker(self, worker: str) -> None:
        """A worker has left, with its homes and its tasks."""
        for entry in self._entries.values():
            if not entry.lost and any(home[0] == worker for home in entry.route.homes):
                entry.lost = (
                    f"{entry.route.kind} {entry.name!r} lived on {worker}, which is gone with what the "
                    "collection held. destroy() it; then the next operation makes a new one."
                )
                self._placement.release(entry.route)
        self._placement.forget_worker(worker)
        self._parties.forget_worker(worker)

    def remove_client(self, client: str) -> None:
        """A client has left, or lost its connection: if it reconnects, it is another party."""
        self._parties.forget_client(client)

    def clear(self) -> None:
        """The cluster restarts: all collections end, and workers that leave get no new homes."""
        self._entries.clear()
        self._placement.restart()

    # --- looking -----------------------------------------------------------------------------------------

    def homes_on(self, worker: str) -> dict[str, str]:
        """The keys of the homes on a worker, and the collections that these belong to."""
        return {
            key: f"{entry.route.kind} {entry.name!r}"
            for entry in self._entries.values()
            if not entry.lost
            for host, key in entry.route.homes
            if host == worker
        }

    async def _list(self, message: List) -> list[dict[str, Any]]:
        """A description of each collection, in plain values."""
        answers = await self._scheduler.broadcast(
            msg=as_operation(Report()), workers=self._parties.present(), on_error="return"
        )
        told = {
            key: each
            for answer in answers.values()
            if isinstance(answer, dict)
            for key, each in answer.items()
        }
        return [_described(entry, told) for entry in self._entries.values()]


async def _answer(coroutine: Coroutine[Any, Any, Any]) -> bytes:
    try:
        return pickle.dumps((True, await coroutine))
    except Exception as error:  # the caller gets it
        return pickle.dumps((False, error))


def _described(entry: _Entry, told: dict[str, dict[str, int]]) -> dict[str, Any]:
    homes = [told.get(key, {}) for _, key in entry.route.homes]
    return {
        "name": entry.name,
        "kind": entry.route.kind,
        "options": dict(entry.route.options),
        "hosts": [worker for worker, _ in entry.route.homes],
        "lost": bool(entry.lost),
        **{what: sum(home.get(what, 0) for home in homes) for what in ("operations", "size", "waiting")},
    }
