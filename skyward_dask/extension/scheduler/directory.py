"""The directory, in the scheduler: which collections there are, and where they live.

`parties` knows who uses them, `placement` creates their homes on workers, and `seats` decides who takes over.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from distributed import Scheduler, Status

from skyward_dask.errors import CollectionConflict, CollectionLost
from skyward_dask.extension import private
from skyward_dask.extension.collections.directory_messages import (
    SIZES,
    Destroy,
    Join,
    Leave,
    List,
    Message,
    Open,
    Part,
    Report,
    handler,
)
from skyward_dask.extension.collections.homes import Homes
from skyward_dask.extension.collections.links import Links, OnLoop
from skyward_dask.extension.scheduler.asking import Asking
from skyward_dask.extension.scheduler.direct_clients import DirectClients
from skyward_dask.extension.scheduler.parties import Parties
from skyward_dask.extension.scheduler.placement import Placement
from skyward_dask.extension.scheduler.seat import Seat
from skyward_dask.extension.scheduler.seats import Seats
from skyward_dask.shared.asks import Route, Spec
from skyward_dask.shared.kinds import REPLICAS


@dataclass(slots=True)
class _Entry:
    """A collection; `lost` says why it can't be used any more."""

    name: str
    kind: str
    options: Mapping[str, Any]
    seats: list[Seat]
    lost: str = ""

    @property
    def route(self) -> Route:
        homes = tuple((seat.host, seat.key) for seat in self.seats)
        return Route(self.kind, self.options, homes, tuple(seat.epoch for seat in self.seats))


class Directory:
    """The collections of a cluster.

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
        self._links = links = Links(
            scheduler.address,
            Homes(),
            scheduler.rpc,
            OnLoop(scheduler.loop),
            is_there=self._is_there,
        )
        self._clients = DirectClients(scheduler)
        self._asking = Asking(scheduler)
        self._seats = Seats(
            scheduler,
            self._parties,
            self._clients,
            self._placement,
            self._asking,
            links.abandon,
            self._lose,
        )
        scheduler.extensions[SIZES] = self._seats
        private.spare_actors(scheduler)
        scheduler.handlers["skyward_wire"] = links.accept
        for kind, take in _ANSWERED.items():
            scheduler.handlers[kind.op] = handler(kind, partial(take, self))

    # --- open and destroy --------------------------------------------------------------------------------

    async def _open(self, message: Open) -> bytes:
        return await _answer(self._open_for(message))

    async def _open_for(self, message: Open) -> Route:
        spec: Spec = pickle.loads(message.spec)
        self._parties.register(message.party, message.client)
        if message.is_direct:
            self._clients.add(message.client)
        route = (await self._found(spec, message.key)).route
        await self._parties.introduce(message.party, self._parties.hosts([route]))
        return route

    async def _found(self, spec: Spec, key: str) -> _Entry:
        if not key and spec.name not in self._entries:  # without the lock, so that all callers wait at once
            await self._placement.wait_for_a_worker()
        async with self._making.setdefault(spec.name, asyncio.Lock()):
            entry = self._entries.get(spec.name)
            if key and (entry is None or all(seat.key != key for seat in entry.seats)):
                raise CollectionLost(f"{spec.kind} {spec.name!r} was destroyed, or its cluster restarted.")
            if entry is None:
                entry = self._entries[spec.name] = await self._made(spec)
        while not entry.lost and (moving := [seat for seat in entry.seats if seat.is_moving]):
            await moving[0].changed.wait()
        if entry.lost:
            raise CollectionLost(entry.lost)
        if difference := spec.differs(entry.kind, entry.options):
            raise CollectionConflict(
                f"the collection {spec.name!r} exists, and {difference}: open it as that, use another name, "
                "or destroy() it."
            )
        return entry

    async def _made(self, spec: Spec) -> _Entry:
        route = await self._placement.make(spec)
        name, replicas = f"{spec.kind} {spec.name!r}", route.options[REPLICAS]
        seats = [Seat(name, key, key, worker, replicas) for worker, key in route.homes]
        self._seats.add(seats)
        return _Entry(spec.name, route.kind, route.options, seats)

    def _is_there(self, worker: str, key: str) -> bool:
        """Whether a call for this home is relayed to that worker."""
        return self._placement.is_there(worker) and self._seats.is_host(worker, key)

    def _join(self, message: Join) -> bool:
        return self._seats.join(message)

    def _part(self, message: Part) -> bool:
        return self._seats.part(message)

    async def _leave(self, message: Leave) -> None:
        if self._scheduler.status == Status.running and self._placement.is_there(message.worker):
            async with self.vacated([message.worker]):
                pass

    async def _destroy(self, message: Destroy) -> bytes:
        return await _answer(self._end(pickle.loads(message.spec)))

    async def _end(self, spec: Spec) -> None:
        """End a collection; does nothing if there is none of that name."""
        async with self._making.setdefault(spec.name, asyncio.Lock()):
            entry = self._entries.get(spec.name)
            if entry is None:
                return
            if entry.kind != spec.kind:
                raise CollectionConflict(f"{spec.name!r} is a {entry.kind}, not a {spec.kind}.")
            del self._entries[spec.name]
            self._seats.remove(entry.seats)
            workers = {each for seat in entry.seats for each in (seat.host, seat.standby, seat.successor)}
            await self._placement.end([seat.key for seat in entry.seats], workers)

    # --- who has left ------------------------------------------------------------------------------------

    def remove_worker(self, worker: str) -> None:
        """A worker has left, with its homes and its tasks."""
        self._links.cut(worker)
        self._placement.forget_worker(worker)
        self._parties.forget_worker(worker)
        if self._scheduler.status != Status.running:
            return
        for seat in self._seats.remove_worker(worker):
            self._lose(seat)

    def _lose(self, seat: Seat) -> None:
        """Both copies of a home are gone, or the only one."""
        for entry in self._entries.values():
            if seat in entry.seats and not entry.lost:
                entry.lost = (
                    f"{seat.name} lived on {seat.host}, which is gone with what the collection held, and "
                    "had no standby in step. destroy() it; then the next operation makes a new one."
                )
                self._seats.remove(entry.seats)

    @asynccontextmanager
    async def vacated(self, workers: Collection[str]) -> AsyncIterator[None]:
        """In the block, these workers have no copies, as far as there is room elsewhere, and get none."""
        self._placement.avoid(workers)
        try:
            await self._seats.vacate(workers)
            yield
        finally:
            self._placement.readmit(workers)

    def remove_client(self, client: str) -> None:
        """A client has left, or lost its connection: if it reconnects, it is another party."""
        self._parties.forget_client(client)
        self._clients.remove(client)

    def clear(self) -> None:
        """The cluster restarts: all collections end, and workers that leave get no new homes."""
        for entry in self._entries.values():
            self._seats.remove(entry.seats)
        self._entries.clear()
        self._placement.note_leaving(self._scheduler.workers)

    def end(self, workers: Collection[str]) -> None:
        """All these workers leave, and no others stay: nothing moves."""
        self._placement.note_leaving(workers)

    def close(self) -> None:
        """The scheduler ends."""
        self._seats.close()

    # --- looking -----------------------------------------------------------------------------------------

    def homes_on(self, worker: str) -> dict[str, str]:
        """The actors on a worker that are homes, and the collections that these belong to."""
        seats = [seat for entry in self._entries.values() if not entry.lost for seat in entry.seats]
        return {seat.actor: seat.name for seat in seats if seat.host == worker}

    async def _list(self, message: List) -> list[dict[str, Any]]:
        """A description of each collection, in plain values."""
        seats = [seat for entry in self._entries.values() for seat in entry.seats]
        workers = self._parties.present() & {each for seat in seats for each in (seat.host, seat.standby)}
        told: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for answer in await self._asking.all(workers, Report()):
            for key, found in answer.items():
                told[key] |= found
        return [_described(entry, told) for entry in self._entries.values()]


async def _answer(coroutine: Coroutine[Any, Any, Any]) -> bytes:
    try:
        return pickle.dumps((True, await coroutine))
    except Exception as error:  # the caller gets it
        return pickle.dumps((False, error))


#: What is added up over the shards of a collection.
_SUMS = ("operations", "size", "waiting", "records", "nbytes", "standby_nbytes")


def _described(entry: _Entry, told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    homes = [told.get(seat.key, {}) for seat in entry.seats]
    return {
        "name": entry.name,
        "kind": entry.kind,
        "options": dict(entry.options),
        "hosts": [seat.host for seat in entry.seats],
        "standby": [seat.standby for seat in entry.seats if seat.standby],
        "in_step": all(seat.is_in_step for seat in entry.seats),
        "since": max(seat.since for seat in entry.seats),
        "moves": sum(seat.moves for seat in entry.seats),
        "seconds": max(seat.took for seat in entry.seats),
        "lost": bool(entry.lost),
        **{what: sum(home.get(what, 0) for home in homes) for what in _SUMS},
    }


#: The messages that the directory answers, and the methods that take them.
_ANSWERED: dict[type[Message], Callable[[Directory, Any], Any]] = {
    Open: Directory._open,
    Destroy: Directory._destroy,
    List: Directory._list,
    Join: Directory._join,
    Leave: Directory._leave,
    Part: Directory._part,
}
