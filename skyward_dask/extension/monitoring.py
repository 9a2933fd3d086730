"""`statistics`: what the slots of a cluster are doing, as frozen dataclasses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from distributed import Client

from skyward_dask.extension.introducing import connected
from skyward_dask.extension.listing import Collection, listed
from skyward_dask.extension.prefixes import PrefixStatistics, added_up


@dataclass(frozen=True, slots=True)
class SlotStatistics:
    """One slot.

    Attributes
    ----------
    index : int
    state : str
        ``"vacant"``, ``"starting"``, ``"idle"``, ``"busy"``, ``"stopping"`` or ``"killing"``.
    pid : int or None
    task : str or None
        The key of the task that is running there.
    tasks_done, crashes, kills : int
        Counted since the worker started.
    memory : int
        Resident bytes of its process; 0 for a thread, whose memory is the worker's.
    cpu : float
        CPU seconds of its current process; for a thread, of all its tasks.
    """

    index: int
    state: str
    pid: int | None
    task: str | None
    tasks_done: int
    crashes: int
    kills: int
    memory: int
    cpu: float


@dataclass(frozen=True, slots=True)
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
    """

    executor: str
    concurrency: int
    slots: tuple[SlotStatistics, ...]


@dataclass(frozen=True, slots=True)
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
    Places are ``child``, ``thread``, ``loop`` and ``worker``; reasons ``plain``, ``p2p``, ``async``,
    ``actor``, ``alias``, ``data``, ``annotated`` and ``other-executor``.
    """
    return client.sync(_statistics, client)  # type: ignore[no-any-return]  # or an awaitable


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
    slots = tuple(SlotStatistics(**slot) for slot in answer["slots"])
    return WorkerStatistics(answer["executor"], answer["concurrency"], slots)
