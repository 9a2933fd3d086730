"""What must be true of a cluster that has nothing to do."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
from distributed import Client

import skyward_dask as sky
from tests.chaos.farm import SLOTS, WORKERS, Farm, children, describe, is_ours

#: Seconds for slots, templates and workers to be replaced, and for what was killed to go.
_PATIENCE = 200.0
#: Seconds between two looks.
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """What a worker holds.

    Attributes
    ----------
    memory : int
        Resident bytes.
    """

    pid: int
    memory: int
    descriptors: int
    threads: int


def wait_quiet(farm: Farm, client: Client) -> list[str]:
    """Wait until nothing is wrong; returns what still is, after a minute."""
    deadline = time.monotonic() + _PATIENCE
    while (faults := list(_faults(farm, client))) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    return faults


def samples(farm: Farm, client: Client) -> list[Sample]:
    """What each worker holds, its garbage aside."""
    client.run(gc.collect)
    return [
        Sample(worker.pid, worker.memory_info().rss, worker.num_fds(), worker.num_threads())
        for worker in farm.workers(client).values()
    ]


def _faults(farm: Farm, client: Client) -> Iterator[str]:
    slots, tasks = client.run_on_scheduler(_scheduled)
    if sorted(slots.values()) != [SLOTS] * WORKERS:
        yield f"slots of the workers: {slots}"
        return
    if tasks:
        yield f"the scheduler has tasks: {tasks}"
    yield from (f"a stray: {describe(process)}" for process in farm.strays())
    workers = farm.workers(client)
    for address, statistics in sky.statistics(client).workers.items():
        yield from _slot_faults(statistics)
        with suppress(psutil.NoSuchProcess):
            yield from _family_faults(workers[address], {slot.pid for slot in statistics.slots})


def _scheduled(dask_scheduler: Any) -> tuple[dict[str, int], list[str]]:
    scheduler = dask_scheduler
    return {address: ws.nthreads for address, ws in scheduler.workers.items()}, [
        f"{key} {task.state}" for key, task in scheduler.tasks.items()
    ]


def _slot_faults(worker: sky.WorkerStatistics) -> Iterator[str]:
    if (worker.executor, worker.concurrency, len(worker.slots)) != ("process", SLOTS, SLOTS):
        yield f"not two slots: {worker}"
    for slot in worker.slots:
        if slot.state != "idle" or slot.pid is None or slot.task is not None:
            yield f"not idle: {slot}"


def _family_faults(worker: psutil.Process, pids: set[int | None]) -> Iterator[str]:
    """A worker has one template, and that has the slots' processes, and as many that wait for a secession."""
    family = {child.pid for child in children(worker)}
    if not pids <= family:
        yield f"slots {pids} of children {family}"
    if len(family) > 2 * SLOTS:
        yield f"{len(family)} processes for {SLOTS} slots"
    for process in worker.children(recursive=True):
        if not is_ours(process):
            yield f"a stray: {describe(process)}"
