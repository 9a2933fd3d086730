"""Retires workers that host collections: these move first; if there is no room, operators are told.

Dask neither retires a worker that has an actor nor moves anything off it; `scale`, `adapt` and ``--lifetime``
close it all the same, with whatever it holds. So homes that couldn't move are hidden while Dask moves the
rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distributed import Scheduler, Status
from distributed.scheduler import WorkerState

from skyward_dask.extension.scheduler.directory import Directory

#: A child of the scheduler's own logger, with the same handlers and level: ``client.get_scheduler_logs()``
#: shows its records.
logger = logging.getLogger("distributed.scheduler.skyward")
#: The options of `retire_workers` besides those of `workers_to_close`.
_OPTIONS = frozenset({"close_workers", "remove", "stimulus_id"})
#: Dask's own default.
_MEMORY_RATIO = 2
#: The level and the text of each event's log record, for operators.
_TEXTS = {
    "spare-host": (
        logging.INFO,
        "Worker %s is not taken when the cluster shrinks, because collections live on it: %s.",
    ),
    "keep-host": (
        logging.WARNING,
        "Worker %s is not retired, because collections live on it that no other worker could take: %s. Its "
        "other data has moved. To retire it, start another worker, or destroy() the collections.",
    ),
    "lose-host": (
        logging.WARNING,
        "Worker %s is closed, and the collections that live on it are lost: %s. Its other data has moved to "
        "other workers.",
    ),
}


class Retirement:
    """Stands in for the scheduler's ``retire_workers`` and ``workers_to_close``.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    directory : Directory
        Knows which collections live where.

    Notes
    -----
    Used on the scheduler's loop only.
    """

    def __init__(self, scheduler: Scheduler, directory: Directory) -> None:
        self._scheduler = scheduler
        self._directory = directory
        self._spared: set[str] = set()
        self._retire: Any = scheduler.retire_workers
        self._choose: Any = scheduler.workers_to_close
        # clients use the handlers; the scheduler itself and its HTTP API use the attributes
        for name, function in (("retire_workers", self.retire), ("workers_to_close", self.workers_to_close)):
            scheduler.handlers[name] = function
            setattr(scheduler, name, function)

    async def retire(
        self, workers: Iterable[Any] | None = None, *, names: Iterable[Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Retire workers, as Dask does.

        Collections move first. If no other worker can take one, its host is not retired, and isn't in the
        answer, unless the caller will close it whatever the answer is: then the collection is lost.
        """
        if None not in (workers, names):
            retired: dict[str, Any] = await self._retire(workers, names=names, **options)  # raises
            return retired
        wanted = workers if names is None else names
        if wanted is None:
            choosing = {name: options.pop(name) for name in options.keys() - _OPTIONS}
            wanted = self.workers_to_close(**choosing)
        found = self._found(wanted)
        # SpecCluster, which passes names as addresses, ignores the answer; so does a worker that leaves
        by_cluster = names is None and set(found).isdisjoint(wanted)
        if by_cluster and len(found) == len(self._scheduler.workers):
            self._directory.end(found)
            return {}  # the cluster is closing, and no worker stays that could take the data
        async with self._directory.vacated(found):
            return await self._retire_vacated(found, by_cluster, **options)

    async def _retire_vacated(self, found: list[str], by_cluster: bool, **options: Any) -> dict[str, Any]:
        """Retire workers, which have no homes any more unless there was no room elsewhere."""
        hosts = {address: homes for address in found if (homes := self._directory.homes_on(address))}
        retired: dict[str, Any] = {}
        if others := [address for address in found if address not in hosts]:
            retired = await self._retire(others, **options)
        if hosts:
            is_closed = by_cluster or str(options.get("stimulus_id")).startswith("worker-close-gracefully")
            retired |= await self._retire_hosts(hosts, is_closed, **options)
        return retired

    def _found(self, wanted: Iterable[Any]) -> list[str]:
        """The addresses of the workers that have these addresses or names."""
        texts = set(map(str, wanted))
        workers = self._scheduler.workers.values()
        return [ws.address for ws in workers if not texts.isdisjoint((ws.address, str(ws.name)))]

    async def _retire_hosts(
        self,
        hosts: Mapping[str, Mapping[str, str]],
        is_closed: bool,
        close_workers: bool = False,
        stimulus_id: str = "skyward-retire-hosts",
        **_: Any,
    ) -> dict[str, Any]:
        workers = self._scheduler.workers
        before = {address: workers[address].status for address in hosts}
        with self._hidden(hosts):
            moved = await self._retire(list(hosts), remove=False, close_workers=False)
        retired = {}
        for address in moved.keys() & workers.keys():  # the others have left, or Dask has said why not
            if is_closed:
                self._tell("lose-host", address, hosts[address])
                await self._scheduler.remove_worker(
                    address, expected=True, close=close_workers, stimulus_id=stimulus_id
                )
                retired[address] = moved[address]
            else:
                self._tell("keep-host", address, hosts[address])
                self._reinstate(address, before[address])
        return retired

    @contextmanager
    def _hidden(self, hosts: Mapping[str, Mapping[str, str]]) -> Iterator[None]:
        """Hide from Dask that homes are actors of their workers."""
        hidden = {
            ws: {task for task in ws.actors if task.key in homes}
            for ws, homes in ((self._scheduler.workers[address], homes) for address, homes in hosts.items())
        }
        for ws, tasks in hidden.items():
            ws.actors -= tasks
        try:
            yield
        finally:
            for ws, tasks in hidden.items():
                ws.actors |= tasks & ws.has_what  # a collection may have been destroyed meanwhile

    def _reinstate(self, worker: str, before: Status) -> None:
        """Have a worker that isn't retired take tasks again, as Dask does when it can't move something."""
        status = before if before == Status.paused else Status.running  # two calls may have tried at once
        message = {"op": "worker-status-change", "status": status.name, "stimulus_id": "skyward-keep-host"}
        self._scheduler.stream_comms[worker].send(message)

    def workers_to_close(self, memory_ratio: float | None = None, **options: Any) -> list[Any]:
        """The workers to close when the cluster shrinks, chosen by Dask among those that can be closed."""
        if options.get("n") is None and options.get("target") is None:
            memory_ratio = self._ratio_of_others(_MEMORY_RATIO if memory_ratio is None else memory_ratio)
        chosen: list[Any] = self._choose(memory_ratio=memory_ratio, **options)
        return chosen

    def _ratio_of_others(self, ratio: float) -> float:
        """The ratio of memory to data for the workers that can be closed: Dask ignores hosts, which stay."""
        hosts = [ws for ws in self._scheduler.workers.values() if self._directory.homes_on(ws.address)]
        everything = sum(ws.nbytes for ws in self._scheduler.workers.values())
        others = everything - sum(ws.nbytes for ws in hosts)
        return (ratio * everything - sum(ws.memory_limit for ws in hosts)) / others if others else ratio

    def spare_hosts(self, workers: Iterable[WorkerState]) -> list[WorkerState]:
        """Those of these workers that can be closed when the cluster shrinks: one has to keep collections."""
        all_hosts = {ws.address: homes for ws in workers if (homes := self._directory.homes_on(ws.address))}
        hosts = dict(sorted(all_hosts.items(), key=lambda host: -len(host[1]))[:1])
        for address in hosts.keys() - self._spared:
            self._tell("spare-host", address, hosts[address])
        self._spared = set(hosts)
        return [ws for ws in workers if ws.address not in hosts]

    def _tell(self, event: str, worker: str, homes: Mapping[str, str]) -> None:
        collections = sorted(set(homes.values()))
        level, text = _TEXTS[event]
        logger.log(level, text, worker, ", ".join(collections))
        self._scheduler.log_event("skyward", {"action": event, "worker": worker, "collections": collections})
