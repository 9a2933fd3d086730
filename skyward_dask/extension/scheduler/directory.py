"""The directory, in the scheduler: which collections there are, where they live, and who is gone.

A home is an actor of Dask's, though one that no task has built: a task would need a free slot, and whoever
waits for the collection may have the last one. So the scheduler is told of it as of scattered data.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
from collections import defaultdict
from collections.abc import Container, Coroutine, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from distributed import Scheduler, Status
from distributed.protocol.pickle import dumps
from distributed.scheduler import WorkerState

from skyward_dask.config import worker_timeout
from skyward_dask.errors import CollectionConflict, CollectionLost, NoWorkers
from skyward_dask.extension import private
from skyward_dask.extension.collections.invitation import Invitation
from skyward_dask.extension.collections.lookup import Unregistered
from skyward_dask.extension.collections.switchboard import Switchboard
from skyward_dask.extension.scheduler.answers import failure
from skyward_dask.shared.asks import Route, Spec
from skyward_dask.shared.kinds import KINDS, SHARDS

logger = logging.getLogger(__name__)

#: Wants the homes' keys, as Dask's own queues and variables have a client that wants theirs.
_CLIENT = "skyward-collections"
#: Seconds between two looks for a running worker: a start of one takes a hundred times as long.
_LOOK = 0.02


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
    Lives on the scheduler's loop.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._entries: dict[str, _Entry] = {}
        # each lives as long as somebody makes or destroys under its name
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # every party that is there and uses collections, or has homes: a worker's address, or a client's id
        self._places: dict[str, str] = {}
        self._leaving: set[WorkerState] = set()
        # why workers have taken no homes, by address
        self._refusals: dict[str, str] = {}
        self._epoch = 0
        self._switchboard = Switchboard(
            scheduler.id, scheduler.address, scheduler.loop, scheduler.rpc, self._refuse, is_there=self._has
        )
        scheduler.handlers["skyward_wire"] = self._switchboard.accept
        scheduler.handlers["skyward_open"] = self.open
        scheduler.handlers["skyward_destroy"] = self.destroy
        scheduler.handlers["skyward_collections"] = self.collections

    async def _refuse(self, spec: Spec) -> Route:
        raise CollectionLost("the scheduler itself uses no collections")

    def _has(self, worker: str) -> bool:
        ws = self._scheduler.workers.get(worker)
        return ws is not None and ws not in self._leaving

    # --- open and destroy --------------------------------------------------------------------------------

    async def open(self, spec: bytes, party: str, client: str) -> bytes:
        """Where a collection lives, made if need be; for `finding.find_at_scheduler`."""
        return await _answer(self._open_for(pickle.loads(spec), party, client))

    async def _open_for(self, spec: Spec, party: str, client: str) -> Route:
        self._places[party] = self._place_of(party, client)
        route = await self._open(spec)
        hosts = self._present([route]) - {self._places.get(party)}
        know = (self._scheduler.rpc(host).skyward_know(party=party) for host in hosts)
        await asyncio.gather(*know, return_exceptions=True)  # a host that is gone takes no calls
        if party not in self._places:  # gone meanwhile, and a host may have heard of that first
            self._tell(party)
            raise Unregistered(party)
        return route

    def _place_of(self, party: str, client: str) -> str:
        if client in self._scheduler.clients:
            return client
        for ws in self._scheduler.workers.values():
            if ws.server_id == party:
                return ws.address
        raise Unregistered(party)

    async def _open(self, spec: Spec) -> Route:
        if spec.name not in self._entries:
            await self._wait_for_a_worker()
        async with self._making.setdefault(spec.name, asyncio.Lock()):
            entry = self._entries.get(spec.name)
            if entry is None:
                entry = self._entries[spec.name] = await self._made(spec)
        if entry.lost:
            raise CollectionLost(entry.lost)
        if difference := spec.differs(entry.route.kind, entry.route.options):
            raise CollectionConflict(
                f"there is a collection named {spec.name!r} already, and {difference}. Leave the option out, "
                "take another name, or destroy() that one."
            )
        return entry.route

    async def _wait_for_a_worker(self) -> None:
        """Not under a name's lock: all who come wait at the same time."""
        patience = worker_timeout()
        deadline = monotonic() + patience
        while not self._running():  # a worker's status changes without a word to plugins
            if monotonic() >= deadline:
                raise NoWorkers(
                    f"a new collection needs a running worker, and there has been none for {patience:g} s: "
                    "start one. The setting skyward.collections.worker-timeout says how long to wait."
                )
            await asyncio.sleep(_LOOK)

    def _running(self) -> list[WorkerState]:
        workers = self._scheduler.workers.values()
        return [ws for ws in workers if ws.status == Status.running and ws not in self._leaving]

    async def _made(self, spec: Spec) -> _Entry:
        options = {**KINDS[spec.kind].options, **dict(spec.options)}
        failed: dict[str, str] = {}
        while workers := self._hosts(options.get(SHARDS, 1), failed):
            homes = [(worker, f"skyward-{spec.kind}-{uuid4().hex}") for worker in workers]
            route = Route(spec.kind, options, tuple(homes))
            failures = await self._found(route)
            if not failures:
                return _Entry(spec.name, route)
            failed |= failures
        reasons = "".join(f"\n  {worker}: {reason}" for worker, reason in failed.items())
        raise NoWorkers(
            f"no worker takes {spec.kind} {spec.name!r}: one must be running that has skyward_dask in its "
            f"environment.{reasons}"
        )

    def _hosts(self, count: int, failed: Container[str]) -> list[str]:
        """Workers for so many homes: those with the fewest actors, and of these the ones that `scale` would
        close last; of those that refused only if need be."""
        left = [ws for ws in self._running() if ws.address not in failed]
        hosts = [ws for ws in left if ws.address not in self._refusals] or left
        hosts.sort(key=lambda ws: (len(ws.actors), _number(ws.name)))
        return [hosts[n % len(hosts)].address for n in range(count)] if hosts else []

    async def _found(self, route: Route) -> dict[str, str]:
        """Have all homes live; returns what went wrong, by worker."""
        by_worker: defaultdict[str, list[str]] = defaultdict(list)
        for worker, key in route.homes:
            by_worker[worker].append(key)
        options = KINDS[route.kind].state_options(route.options, self._next_epoch())
        reasons = await asyncio.gather(
            *(
                self._found_on(worker, [(key, route.kind, options) for key in keys])
                for worker, keys in by_worker.items()
            )
        )
        failures = {worker: reason for worker, reason in zip(by_worker, reasons, strict=True) if reason}
        if failures:
            await self._end(route)
        return failures

    async def _found_on(self, worker: str, homes: list[tuple[str, str, dict[str, Any]]]) -> str:
        """Returns why it can't be; empty if the homes live."""
        scheduler = self._scheduler
        if (ws := scheduler.workers.get(worker)) is None:
            return "it is gone"
        for key, _, _ in homes:  # before the worker has it: what a worker alone knows of, it is told to drop
            private.know_actor(scheduler, key, worker, _CLIENT)
        invitation = {"op": "plugin-add", "plugin": dumps(Invitation()), "name": Invitation.name}
        found = {"op": "skyward_found", "homes": homes}
        for message in (invitation, found):
            answers = await scheduler.broadcast(msg=message, workers=[worker], on_error="return")
            if reason := failure(answers[worker]):
                if self._refusals.setdefault(worker, reason) is reason:
                    logger.warning("%s takes no collections: %s", worker, reason)
                return reason
        if scheduler.workers.get(worker) is not ws or ws in self._leaving:
            return "it is gone"
        self._refusals.pop(worker, None)
        self._places[ws.server_id] = worker
        return ""

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    def _release(self, route: Route) -> None:
        if _CLIENT in self._scheduler.clients:
            self._scheduler.client_releases_keys([key for _, key in route.homes], _CLIENT)

    async def destroy(self, spec: bytes) -> bytes:
        """End a collection; nothing happens if there is none."""
        return await _answer(self._destroy(pickle.loads(spec)))

    async def _destroy(self, spec: Spec) -> None:
        async with self._making.setdefault(spec.name, asyncio.Lock()):
            entry = self._entries.get(spec.name)
            if entry is None:
                return
            if entry.route.kind != spec.kind:
                raise CollectionConflict(f"{spec.name!r} is a {entry.route.kind}, not a {spec.kind}.")
            del self._entries[spec.name]
            await self._end(entry.route)

    async def _end(self, route: Route) -> None:
        """End homes, where their workers are still there."""
        message = {"op": "skyward_end", "keys": [key for _, key in route.homes]}
        await self._scheduler.broadcast(msg=message, workers=self._present([route]), on_error="return")
        self._release(route)

    def _attended(self) -> set[str]:
        """The workers that know of collections; one that has come to the address of such a worker doesn't."""
        return {place for place in self._places.values() if place in self._scheduler.workers}

    def _present(self, routes: Iterable[Route]) -> set[str]:
        """The workers that homes live on, as far as they are there."""
        return self._attended() & {worker for route in routes for worker, _ in route.homes}

    def homes_on(self, worker: str) -> dict[str, str]:
        """The keys of the homes on a worker, and the collections that these belong to."""
        return {
            key: f"{entry.route.kind} {entry.name!r}"
            for entry in self._entries.values()
            if not entry.lost
            for host, key in entry.route.homes
            if host == worker
        }

    # --- who is gone ---------------------------------------------------------------------------------------

    def remove_worker(self, worker: str) -> None:
        """A worker is gone, with its homes and its tasks."""
        for entry in self._entries.values():
            if not entry.lost and any(home[0] == worker for home in entry.route.homes):
                entry.lost = (
                    f"{entry.route.kind} {entry.name!r} lived on {worker}, which is gone with what the "
                    "collection held. destroy() it; then the next operation makes a new one."
                )
                self._release(entry.route)
        self._leaving = {ws for ws in self._leaving if self._scheduler.workers.get(ws.address) is ws}
        self._refusals.pop(worker, None)
        self._forget(worker, worker)

    def remove_client(self, client: str) -> None:
        """A client is gone, or its connection is: then it comes again as another party."""
        self._forget(client)

    def _forget(self, place: str, worker: str = "") -> None:
        for party in [party for party, found in self._places.items() if found == place]:
            del self._places[party]
            self._tell(party, worker)

    def _tell(self, party: str, worker: str = "") -> None:
        for each in self._attended():
            self._scheduler.worker_send(each, {"op": "skyward_gone", "party": party, "worker": worker})

    def clear(self) -> None:
        """The cluster restarts: all collections end, and nothing new is to live on the workers that go."""
        self._entries.clear()
        self._leaving = set(self._scheduler.workers.values())

    # --- looking -----------------------------------------------------------------------------------------

    async def collections(self) -> list[dict[str, Any]]:
        """What there is to tell, in plain values."""
        answers = await self._scheduler.broadcast(
            msg={"op": "skyward_homes"}, workers=self._attended(), on_error="return"
        )
        told = {
            key: each
            for answer in answers.values()
            if isinstance(answer, dict)
            for key, each in answer.items()
        }
        return [_described(entry, told) for entry in self._entries.values()]


def _number(name: Any) -> int:
    """The number in the name that a cluster object has given to a worker; it counts upwards."""
    found = re.search(r"\d+$", str(name))
    return int(found[0]) if found else 0


async def _answer(coroutine: Coroutine[Any, Any, Any]) -> bytes:
    try:
        return pickle.dumps((True, await coroutine))
    except Exception as error:  # the caller's to see
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
