"""`sky.statistics`: what each slot does, and what it has done since its worker started."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Scheduler, Worker, secede
from distributed.utils_test import gen_cluster

import skyward_dask as sky
from tests.test_install import PROCESS, block


async def slots(client: Client, worker: Worker) -> tuple[sky.SlotStatistics, ...]:
    return (await sky.statistics(client)).workers[worker.address].slots


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_counts_stay(c: Client, s: Scheduler, a: Worker) -> None:
    """Over another install, over an uninstall, and while the last run of an old pool goes on."""
    await sky.install(c, PROCESS)
    fifos = [f"{a.local_directory}/{name}" for name in ("started", "release")]
    for fifo in fifos:
        os.mkfifo(fifo)
    running = c.submit(block, *fifos)
    await asyncio.to_thread(Path(fifos[0]).read_text)
    await c.gather(c.map(abs, range(5), pure=False))
    with pytest.raises(sky.SlotCrashed):
        await c.submit(os._exit, 1, pure=False)
    for done, change in ((6, sky.install), (6, sky.uninstall), (7, None)):
        found = await slots(c, a)
        assert sum(slot.tasks_done for slot in found) == done and sum(slot.crashes for slot in found) == 1
        if change is not None:
            await change(c)
            await sky.install(c, PROCESS)
        if done == 6 and change is sky.uninstall:
            await asyncio.to_thread(Path(fifos[1]).write_text, "")
            await running
    assert (await sky.statistics(c)).tasks == {("child", "plain"): 7}


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_thread_slots(c: Client, s: Scheduler, a: Worker) -> None:
    """A task has the lowest index that is free, until it ends or secedes."""

    def step_aside(*fifos: str) -> int:
        secede()  # type: ignore[no-untyped-call]
        return block(*fifos)

    await sky.install(c, sky.Worker(concurrency=2, executor="thread"))
    assert [slot.state for slot in await slots(c, a)] == ["idle", "idle"]
    fifos = [f"{a.local_directory}/{name}" for name in ("started", "release")]
    for fifo in fifos:
        os.mkfifo(fifo)
    for function, task in ((block, "blocks"), (step_aside, None)):
        future = c.submit(function, *fifos, key="blocks", pure=False)
        await asyncio.to_thread(Path(fifos[0]).read_text)
        first, second = await slots(c, a)
        assert (first.task, second.task, first.pid) == (task, None, os.getpid())
        assert first.state == ("busy" if task else "idle")
        await asyncio.to_thread(Path(fifos[1]).write_text, "")
        await future
        del future
        await _forgotten(s, "blocks")
    assert sum(slot.tasks_done for slot in await slots(c, a)) == 2


async def _forgotten(scheduler: Any, key: str) -> None:
    while key in scheduler.tasks:
        await asyncio.sleep(0.01)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_worker_without_slots_is_not_asked(c: Client, s: Scheduler, a: Worker, caplog: Any) -> None:
    """It doesn't know the question, and would log an error."""
    assert (await sky.statistics(c)).workers == {}
    assert (await sky.check(c)).workers[a.address].executor is None
    await sky.install(c, PROCESS)
    assert list((await sky.statistics(c)).workers) == [a.address]
    await sky.uninstall(c)
    assert (await sky.statistics(c)).workers == {}
    assert "No handler" not in caplog.text
