"""The directory, in the scheduler: which collections there are, where they live, and who is gone.

A home is an actor of Dask's, though one that no task has built: a task would need a free slot, and whoever
waits for the collection may have the last one. So the scheduler is told of it as of scattered data.
"""

from __future__ import annotations

import asyncio
import pickle
import re
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from distributed import Scheduler, Status
from distributed.protocol.pickle import dumps

from skyward_dask.errors import CollectionConflict, CollectionLost
from skyward_dask.extension import private
from skyward_dask.extension.attending import Invitation
from skyward_dask.extension.switchboard import Switchboard
from skyward_dask.shared.asks import Route, Spec

#: Wants the homes' keys, as Dask's own queues and variables have a client that wants theirs.
_CLIENT = "skyward-collections"
#: Lock numbers of one epoch: more than a lock is acquired in years.
_FENCES = 1 << 40
#: Hosts that may be lost while a collection is made, before one gives up: arbitrary.
_TRIES = 3
#: What an option is for a collection that is made without it.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "barrier": {},
    "counter": {"consistency": "strong"},
    "dict": {"shards": 1, "consistency": "strong"},
    "lock": {},
    "queue": {"maxsize": None},
    "set": {"shards": 1, "consistency": "strong"},
}


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
        self._users: set[str] = set()
        self._epoch = 0
        self._switchboard = Switchboard(
            scheduler.address, scheduler.loop, scheduler.rpc, self._refuse, is_there=self._has
        )
        scheduler.handlers["skyward_wire"] = self._switchboard.accept
        scheduler.handlers["skyward_open"] = self.open
        scheduler.handlers["skyward_destroy"] = self.destroy
        scheduler.handlers["skyward_collections"] = self.collections

    async def _refuse(self, spec: Spec) -> Route:
        raise CollectionLost("the scheduler itself uses no collections")

    def _has(self, worker: str) -> bool:
        return worker in self._scheduler.workers

    # --- open and destroy --------------------------------------------------------------------------------

    async def open(self, spec: bytes, party: str) -> bytes:
        """Where a collection lives, made if need be; for `finding.ask`."""
        self._users.add(party)
        return await _answer(self._open(pickle.loads(spec)))

    async def _open(self, spec: Spec) -> Route:
        async with self._making.setdefault(spec.name, asyncio.Lock()):
            entry = self._entries.get(spec.name)
            if entry is None:
                entry = self._entries[spec.name] = await self._made(spec)
        if difference := spec.differs(entry.route.kind, entry.route.options):
            raise CollectionConflict(
                f"there is a collection named {spec.name!r} already, and {difference}. Leave the option out, "
                "take another name, or destroy() that one."
            )
        if entry.lost:
            raise CollectionLost(entry.lost)
        return entry.route

    async def _made(self, spec: Spec) -> _Entry:
        options = _DEFAULTS[spec.kind] | dict(spec.options)
        for _ in range(_TRIES):
            workers = self._hosts(options.get("shards", 1))
            homes = [(worker, f"skyward-{spec.kind}-{uuid4().hex}") for worker in workers]
            route = Route(spec.kind, options, tuple(homes))
            if await self._found(route):
                return _Entry(spec.name, route)
        raise CollectionLost(f"no worker takes {spec.kind} {spec.name!r}: they come and go, or don't answer.")

    def _hosts(self, count: int) -> list[str]:
        """Workers for so many homes: those that have the fewest actors, and of these the ones that `scale`
        would close last."""
        running = [ws for ws in self._scheduler.workers.values() if ws.status == Status.running]
        if not running:
            raise CollectionLost("there is no running worker for a collection to live on: start one.")
        running.sort(key=lambda ws: (len(ws.actors), _number(ws.name)))
        return [running[n % len(running)].address for n in range(count)]

    async def _found(self, route: Route) -> bool:
        """Have all homes live; False if a worker is gone."""
        by_worker: defaultdict[str, list[str]] = defaultdict(list)
        for worker, key in route.homes:
            by_worker[worker].append(key)
        options = _state_options(route, self._next_epoch())
        answers = await asyncio.gather(
            *(
                self._found_on(worker, [(key, route.kind, options) for key in keys])
                for worker, keys in by_worker.items()
            )
        )
        if not all(answers):
            await self._end(route)
        return all(answers)

    async def _found_on(self, worker: str, homes: list[tuple[str, str, dict[str, Any]]]) -> bool:
        scheduler = self._scheduler
        if worker not in scheduler.workers:
            return False
        for key, _, _ in homes:  # before the worker has it: what a worker alone knows of, it is told to drop
            private.know_actor(scheduler, key, worker, _CLIENT)
        invitation = {"op": "plugin-add", "plugin": dumps(Invitation()), "name": Invitation.name}
        found = {"op": "skyward_found", "homes": homes}
        for message in (invitation, found):
            answers = await scheduler.broadcast(msg=message, workers=[worker], on_error="return")
        return answers.get(worker) == "OK" and worker in scheduler.workers

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

    def _present(self, routes: Iterable[Route]) -> list[str]:
        """The workers that homes live on, as far as they are there."""
        hosts = {worker for route in routes for worker, _ in route.homes}
        return [worker for worker in hosts if worker in self._scheduler.workers]

    def _all_present(self) -> list[str]:
        return self._present(entry.route for entry in self._entries.values())

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
            if any(home[0] == worker for home in entry.route.homes):
                entry.lost = (
                    f"{entry.route.kind} {entry.name!r} lived on {worker}, which is gone with what the "
                    "collection held. destroy() it; then the next operation makes a new one."
                )
                self._release(entry.route)
        self._switchboard.forget_worker(worker)
        self._users.discard(worker)
        self._tell(worker)

    def remove_client(self, client: str) -> None:
        """A client is gone."""
        if client in self._users:
            self._users.discard(client)
            self._tell(client)

    def _tell(self, party: str) -> None:
        for worker in {*self._all_present(), *(self._users & self._scheduler.workers.keys())}:
            self._scheduler.worker_send(worker, {"op": "skyward_gone", "party": party})

    def clear(self) -> None:
        """The cluster restarts: all collections end."""
        self._entries.clear()

    # --- looking -----------------------------------------------------------------------------------------

    async def collections(self) -> list[dict[str, Any]]:
        """What there is to tell, in plain values."""
        answers = await self._scheduler.broadcast(
            msg={"op": "skyward_homes"}, workers=self._all_present(), on_error="return"
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


def _state_options(route: Route, epoch: int) -> dict[str, Any]:
    """What the class of the state takes."""
    if route.kind == "lock":
        return {"fence": epoch * _FENCES}  # so that no number comes again when a lock is made anew
    return {name: route.options[name] for name in ("maxsize", "parties") if name in route.options}


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
