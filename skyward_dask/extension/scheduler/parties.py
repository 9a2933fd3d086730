"""The parties that use collections, as the scheduler knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from distributed import Scheduler
from distributed.scheduler import WorkerState

from skyward_dask.extension.collections.directory_messages import Gone, Know, as_operation, ask
from skyward_dask.extension.collections.lookup import Unregistered
from skyward_dask.shared.asks import Route


class Parties:
    """Every party in the cluster that uses collections or has homes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        # by party: a worker's address, or a client's id
        self._places: dict[str, str] = {}

    def register(self, party: str, client: str) -> None:
        """Note that a party will make calls; raises `Unregistered` if there is no such worker or client."""
        self._places[party] = self._place_of(party, client)

    def _place_of(self, party: str, client: str) -> str:
        if client in self._scheduler.clients:
            return client
        for ws in self._scheduler.workers.values():
            if ws.server_id == party:
                return ws.address
        raise Unregistered(party)

    def note_host(self, ws: WorkerState) -> None:
        """Note that a worker has homes."""
        self._places[ws.server_id] = ws.address

    async def introduce(self, party: str, hosts: Iterable[str]) -> None:
        """Have hosts accept a party's calls; raises `Unregistered` if the party has left meanwhile."""
        others = set(hosts) - {self._places.get(party)}
        know = (ask(self._scheduler.rpc(host), Know(party)) for host in others)
        await asyncio.gather(*know, return_exceptions=True)  # a host that has left takes no calls
        if party not in self._places:  # a host may have received `Gone` before `Know`
            self._tell(Gone(party, ""))
            raise Unregistered(party)

    def all(self) -> list[str]:
        """Every party that is in the cluster."""
        return list(self._places)

    def present(self) -> set[str]:
        """The workers that take part in collections; a new worker at such a worker's old address doesn't."""
        return {place for place in self._places.values() if place in self._scheduler.workers}

    def hosts(self, routes: Iterable[Route]) -> set[str]:
        """The workers on which these homes live, if they are still in the cluster."""
        return self.present() & {worker for route in routes for worker, _ in route.homes}

    def tell_of_gone(self, parties: Iterable[str]) -> None:
        """Tell again of those of these parties that have left."""
        for party in parties:
            if party not in self._places:
                self._tell(Gone(party, ""))

    def forget_worker(self, worker: str) -> None:
        self._forget(worker, worker)

    def forget_client(self, client: str) -> None:
        self._forget(client, "")

    def _forget(self, place: str, worker: str) -> None:
        for party in [party for party, found in self._places.items() if found == place]:
            del self._places[party]
            self._tell(Gone(party, worker))

    def _tell(self, message: Gone) -> None:
        for each in self.present():
            self._scheduler.worker_send(each, as_operation(message))
