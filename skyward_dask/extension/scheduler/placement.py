"""Where homes live: chooses workers, and has them create homes.

A home is a Dask actor, though no task has built it: a task would need a free slot, and the caller that waits
for the collection may have the last one. So the scheduler is told of a home as it is told of scattered data.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Container, Iterable
from time import monotonic
from typing import Any
from uuid import uuid4

from distributed import Scheduler, Status
from distributed.protocol.pickle import dumps
from distributed.scheduler import WorkerState

from skyward_dask.errors import NoWorkers
from skyward_dask.extension import private
from skyward_dask.extension.collections.directory_messages import End, Found, as_operation, is_standby
from skyward_dask.extension.collections.invitation import Invitation
from skyward_dask.extension.scheduler.answers import failure
from skyward_dask.extension.scheduler.parties import Parties
from skyward_dask.settings import worker_timeout
from skyward_dask.shared.asks import Route, Spec
from skyward_dask.shared.kinds import KINDS, SHARDS

logger = logging.getLogger(__name__)

#: The client that wants the homes' keys, as Dask's own queues and variables have one that wants theirs.
CLIENT = "skyward-collections"
#: Seconds between two checks for a running worker: starting one takes a hundred times as long.
_LOOK = 0.02


class Placement:
    """Creates homes on workers, and ends them.

    Attributes
    ----------
    avoided : set of str
        Addresses of workers that are about to be retired, and get no homes.
    """

    def __init__(self, scheduler: Scheduler, parties: Parties) -> None:
        self._scheduler = scheduler
        self._parties = parties
        self._leaving: set[WorkerState] = set()
        self.avoided: set[str] = set()
        # why workers have refused homes, by address
        self._refusals: dict[str, str] = {}
        self._epoch = 0

    def is_there(self, worker: str) -> bool:
        """Whether a worker is in the cluster, and not about to leave."""
        ws = self._scheduler.workers.get(worker)
        return ws is not None and ws not in self._leaving

    def forget_worker(self, worker: str) -> None:
        self._leaving = {ws for ws in self._leaving if self._scheduler.workers.get(ws.address) is ws}
        self._refusals.pop(worker, None)

    def note_leaving(self, workers: Iterable[str]) -> None:
        """These workers are about to leave, and nothing stays that could take what they have."""
        self._leaving |= {self._scheduler.workers[worker] for worker in workers}

    # --- workers -----------------------------------------------------------------------------------------

    async def wait_for_a_worker(self) -> None:
        """Wait for a running worker; raises `NoWorkers` if there is none in time."""
        patience = worker_timeout()
        deadline = monotonic() + patience
        while not self._running():  # plugins aren't told when a worker's status changes
            if monotonic() >= deadline:
                raise NoWorkers(
                    f"a new collection needs a running worker, and there has been none for {patience:g} s: "
                    "start one. The setting skyward.collections.worker-timeout says how long to wait."
                )
            await asyncio.sleep(_LOOK)

    def _running(self) -> list[WorkerState]:
        workers = self._scheduler.workers.values()
        running = [ws for ws in workers if ws.status == Status.running and ws not in self._leaving]
        return [ws for ws in running if ws.address not in self.avoided]

    def avoid(self, workers: Iterable[str]) -> None:
        """Give these workers no homes: they are to be retired."""
        self.avoided.update(workers)

    def readmit(self, workers: Iterable[str]) -> None:
        """These workers have left, or stay after all."""
        self.avoided.difference_update(workers)

    def standby_for(self, host: str, without: Container[str]) -> str:
        """The worker for the standby of a home on this host; empty if there is none.

        It is on another machine if there is one, and among these the one with the fewest copies and other
        actors and the most free memory.
        """
        own = self._scheduler.workers.get(host)
        others = [ws for ws in self._running() if ws is not own and ws.address not in without]
        others = [ws for ws in others if ws.address not in self._refusals]
        others.sort(key=lambda ws: (own is None or ws.host == own.host, len(ws.actors), -_free(ws)))
        return others[0].address if others else ""

    def _hosts(self, count: int, failed: Container[str]) -> list[str]:
        """Workers for `count` homes.

        They are those with the fewest actors, and among these the ones that `scale` would close last. Workers
        that have refused homes are used only if there are no others.
        """
        left = [ws for ws in self._running() if ws.address not in failed]
        hosts = [ws for ws in left if ws.address not in self._refusals] or left
        hosts.sort(key=lambda ws: (_actors(ws), _number(ws.name)))
        return [hosts[n % len(hosts)].address for n in range(count)] if hosts else []

    # --- homes -------------------------------------------------------------------------------------------

    async def make(self, spec: Spec) -> Route:
        """Create the homes of a new collection, in the first epoch."""
        options = {**KINDS[spec.kind].options, **dict(spec.options)}
        failed: dict[str, str] = {}
        while workers := self._hosts(options.get(SHARDS, 1), failed):
            homes = [(worker, f"skyward-{spec.kind}-{uuid4().hex}") for worker in workers]
            route = Route(spec.kind, options, tuple(homes), (1,) * len(homes))
            failures = await self._found(route)
            if not failures:
                return route
            failed |= failures
        reasons = "".join(f"\n  {worker}: {reason}" for worker, reason in failed.items())
        raise NoWorkers(
            f"no worker can host {spec.kind} {spec.name!r}: a worker with skyward_dask in its environment "
            f"must be running.{reasons}"
        )

    async def _found(self, route: Route) -> dict[str, str]:
        """Create all homes; returns what went wrong, by worker."""
        by_worker: defaultdict[str, list[str]] = defaultdict(list)
        for worker, key in route.homes:
            by_worker[worker].append(key)
        self._epoch += 1
        options = KINDS[route.kind].state_options(route.options, self._epoch)
        reasons = await asyncio.gather(
            *(
                self._found_on(worker, Found([(key, route.kind, options) for key in keys]))
                for worker, keys in by_worker.items()
            )
        )
        failures = {worker: reason for worker, reason in zip(by_worker, reasons, strict=True) if reason}
        if failures:
            keys = [key for _, key in route.homes]
            await self.end(keys, {worker for worker, _ in route.homes})
            self.release(keys)
        return failures

    async def _found_on(self, worker: str, found: Found) -> str:
        """Create the homes of one worker; returns why that failed, or empty text."""
        scheduler = self._scheduler
        if (ws := scheduler.workers.get(worker)) is None:
            return "it is gone"
        # before the worker has it: the scheduler tells workers to drop keys that it doesn't know
        for key, *_ in found.homes:
            private.know_actor(scheduler, key, worker, CLIENT)
        if reason := await self.invite(worker) or await self._tell(worker, as_operation(found)):
            return reason
        return "" if scheduler.workers.get(worker) is ws and ws not in self._leaving else "it is gone"

    async def invite(self, worker: str) -> str:
        """Have a worker take part in collections; returns why that failed, or empty text."""
        ws = self._scheduler.workers.get(worker)
        invitation = {"op": "plugin-add", "plugin": dumps(Invitation()), "name": Invitation.name}
        reason = await self._tell(worker, invitation)
        if reason or ws is None or self._scheduler.workers.get(worker) is not ws:
            return reason or "it is gone"
        self._refusals.pop(worker, None)
        self._parties.note_host(ws)
        return ""

    async def _tell(self, worker: str, message: dict[str, Any]) -> str:
        answers = await self._scheduler.broadcast(msg=message, workers=[worker], on_error="return")
        reason, refuses = failure(answers[worker]), not isinstance(answers[worker], OSError)
        if reason and refuses and self._refusals.setdefault(worker, reason) is reason:
            logger.warning("%s can't host collections: %s", worker, reason)
        return reason

    async def end(self, keys: list[str], workers: set[str]) -> None:
        """End these homes on those of the workers that are still in the cluster."""
        message = as_operation(End(keys))
        present = workers & self._parties.present()
        await self._scheduler.broadcast(msg=message, workers=present, on_error="return")

    def release(self, actors: list[str]) -> None:
        """Release homes' keys as actors: nobody wants them any more."""
        if CLIENT in self._scheduler.clients:
            self._scheduler.client_releases_keys(actors, CLIENT)


def _actors(ws: WorkerState) -> int:
    """The number of a worker's actors, without those that are standbys."""
    return sum(not is_standby(task.key) for task in ws.actors)


def _free(ws: WorkerState) -> int:
    """Bytes of memory that a worker doesn't use."""
    return int(ws.memory_limit or 1 << 62) - int(ws.metrics.get("memory", 0))


def _number(name: Any) -> int:
    """The number in the name that a cluster object has given to a worker; it counts upwards."""
    found = re.search(r"\d+$", str(name))
    return int(found[0]) if found else 0
