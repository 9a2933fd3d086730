"""`statistics`: what the slots of a cluster are doing, as frozen dataclasses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dask.utils import format_bytes
from distributed import Client

from skyward_dask.extension.client.collection_list import Collection, listed
from skyward_dask.extension.client.tables import Row, as_html, as_text
from skyward_dask.extension.connection import checked, connected
from skyward_dask.extension.prefixes import PrefixStatistics, added_up
from skyward_dask.slots.statistics import SlotStatistics

#: What the tables of `Statistics` show.
_WORKER = ("worker", "executor", "slots", "busy", "done", "crashes", "kills", "memory", "CPU")
_PREFIX = ("prefix", "runs", "CPU", "wall", "peak memory", "over limit", "timeouts", "crashes")
_COLLECTION = ("collection", "kind", "hosts", "standby", "size", "waiting", "operations")


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """The streams of one worker's tasks.

    Attributes
    ----------
    open : int
        How many haven't ended.
    items, nbytes : int
        Sent since the worker started; bytes as they were pickled.
    """

    open: int = 0
    items: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class WorkerStatistics:
    """One worker.

    Attributes
    ----------
    executor : str
        ``"thread"`` or ``"process"``.
    concurrency : int
        The number of its task slots.
    slots : tuple of SlotStatistics
        Its slots; on a node with thread slots, these and then the processes started for annotated tasks.
    streams : StreamStatistics
        The streams of its tasks.
    """

    executor: str
    concurrency: int
    slots: tuple[SlotStatistics, ...]
    streams: StreamStatistics = StreamStatistics()

    def __repr__(self) -> str:
        done = sum(slot.tasks_done for slot in self.slots)
        return f"<{self.concurrency} {self.executor} slots, {self._busy} busy, {done} tasks done>"

    @property
    def _busy(self) -> int:
        return sum(slot.task is not None for slot in self.slots)

    def _row(self) -> Row:
        sums = (
            sum(getattr(slot, name) for slot in self.slots) for name in ("tasks_done", "crashes", "kills")
        )
        memory, cpu = (sum(getattr(slot, name) for slot in self.slots) for name in ("memory", "cpu"))
        return self.executor, self.concurrency, self._busy, *sums, format_bytes(memory), f"{cpu:.1f} s"


@dataclass(frozen=True, slots=True, repr=False)
class Statistics:
    """A cluster at one moment.

    Attributes
    ----------
    workers : dict
        `WorkerStatistics` by address.
    tasks : dict
        How many tasks have run, by (place, reason), on the current workers.
    collections : dict
        `Collection` by name.
    prefixes : dict
        `PrefixStatistics` by the prefix of the tasks' keys, on the current workers.
    """

    workers: dict[str, WorkerStatistics]
    tasks: dict[tuple[str, str], int]
    collections: dict[str, Collection]
    prefixes: dict[str, PrefixStatistics]

    def __repr__(self) -> str:
        return "\n\n".join(as_text(*table) for table in self._tables()) or "no workers with slots"

    def _repr_html_(self) -> str:
        return "".join(as_html(*table) for table in self._tables()) or "no workers with slots"

    def _tables(self) -> Iterator[tuple[Sequence[str], Sequence[Row]]]:
        if self.workers:
            yield _WORKER, [(address, *worker._row()) for address, worker in self.workers.items()]
        if self.tasks:
            yield ("place", "reason", "tasks"), [(*route, count) for route, count in self.tasks.items()]
        if self.prefixes:
            costly = sorted(self.prefixes.items(), key=lambda named: -named[1].cpu)
            yield _PREFIX, [(prefix, *_prefix_row(found)) for prefix, found in costly]
        sent = {worker: found.streams for worker, found in self.workers.items() if found.streams.items}
        if sent:
            rows = [(worker, s.open, s.items, format_bytes(s.nbytes)) for worker, s in sent.items()]
            yield ("worker", "streams", "items", "bytes"), rows
        if self.collections:
            yield _COLLECTION, [_collection_row(found) for found in self.collections.values()]


def _prefix_row(found: PrefixStatistics) -> Row:
    over = found.memory_limit_hits, found.timeouts, found.crashes
    return found.count, f"{found.cpu:.1f} s", f"{found.wall:.1f} s", format_bytes(found.peak_memory), *over


def _collection_row(found: Collection) -> Row:
    hosts, standby = ", ".join(found.hosts), ", ".join(found.standby)
    standby += " (not in step)" if standby and not found.in_step else ""
    return found.name, found.kind, hosts, standby, found.size, found.waiting, found.operations


def statistics(client: Client) -> Statistics:
    """What the slots of the cluster are doing.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    Statistics
        With an asynchronous client, an awaitable of it.

    Examples
    --------
    >>> statistics(client).tasks  # doctest: +SKIP
    {('child', 'plain'): 20}

    Notes
    -----
    Everything that has reached the scheduler is counted: a task that has ended, an event of a slot. The
    scheduler asks only nodes where tasks are, or where something has happened since their last report; the
    others report with Dask's heartbeat, twice a second (less often in a cluster of hundreds of workers). The
    scheduler sees no items of streams: their count may be as old as the last heartbeat.

    Places are ``child``, ``thread``, ``loop`` and ``worker``; reasons ``plain``, ``p2p``, ``async``,
    ``actor``, ``alias``, ``data``, ``annotated`` and ``other-executor``.
    """
    return checked(client).sync(_statistics, client)  # type: ignore[no-any-return]  # or an awaitable


async def _statistics(client: Client) -> Statistics:
    scheduler = await connected(client)
    answers = await scheduler.skyward_statistics()
    tasks: Counter[tuple[str, str]] = Counter()
    for answer in answers.values():
        for place, reason, count in answer["tasks"]:
            tasks[place, reason] += count
    workers = {worker: _worker(answer) for worker, answer in answers.items()}
    prefixes = added_up(answer["prefixes"] for answer in answers.values())
    return Statistics(workers, dict(tasks), await listed(client), prefixes)


def _worker(answer: dict[str, Any]) -> WorkerStatistics:
    slots = tuple(SlotStatistics(*slot) for slot in answer["slots"])
    streams = StreamStatistics(*answer["streams"])
    return WorkerStatistics(answer["executor"], answer["concurrency"], slots, streams)
