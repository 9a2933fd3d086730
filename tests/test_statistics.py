"""`sky.statistics`: what each slot does, and what it has done since its worker started."""

from __future__ import annotations

import asyncio
import os
import time
from mmap import MAP_PRIVATE, mmap
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Scheduler, Worker, secede
from distributed.metrics import context_meter

import skyward_dask as sky
from tests.clusters import gen_cluster
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


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_who_is_idle_is_not_asked(c: Client, s: Scheduler, a: Worker) -> None:
    """What a node has done is in its heartbeats soon; until then it is asked, and nothing is old."""
    await sky.install(c, PROCESS)
    answer, asked, futures = a.handlers["skyward_statistics"], 0, []

    async def noted() -> Any:
        nonlocal asked
        asked += 1
        return await answer()

    a.handlers["skyward_statistics"] = noted
    for done in (1, 2):
        futures.append(c.submit(abs, done, pure=False))
        await futures[-1]
        before = 0
        while asked > before:  # or the test's time is over
            before = asked
            found = await sky.statistics(c)
            assert found.tasks == {("child", "plain"): done} and found.prefixes["abs"].count == done
            assert sum(slot.tasks_done for slot in found.workers[a.address].slots) == done
            await asyncio.sleep(0.05)
    a.handlers["skyward_statistics"] = answer


MIB = 2**20


def burn_and_hold(size: int) -> float:
    """Returns the CPU seconds that it has taken by its own account."""
    held, begun = bytearray(b"x") * size, time.process_time()
    while time.process_time() < begun + 0.2:
        pass
    return time.process_time() - begun if held else 0.0


def small(n: int) -> int:
    return n


def digest(n: int) -> None:
    for _ in range(n):
        context_meter.digest_metric("counted", 1, "count")


class Light:
    """Holds memory that isn't sent with it, and is given back to the system with it."""

    def __init__(self, size: int) -> None:
        self.held = mmap(-1, size, MAP_PRIVATE)
        self.held.write(bytes(size))

    def __reduce__(self) -> Any:
        return int, ()


def crash() -> None:
    os._exit(1)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_prefixes_of_process_slots(c: Client, s: Scheduler, a: Worker) -> None:
    """CPU and peak agree with what a task measures itself; one that comes next isn't charged for it."""
    await sky.install(c, sky.Worker(concurrency=1, executor="process"))
    before = await c.submit(small, 1, pure=False)
    took = sum(await c.gather([c.submit(burn_and_hold, 200 * MIB, pure=False) for _ in range(2)]))
    await c.gather(c.map(small, range(20), pure=False))
    for n in range(5):
        await c.gather([c.submit(digest, 1000, pure=False), c.submit(small, n, key=f"after_digest-{n}")])
        await c.gather([c.submit(Light, 20 * MIB, pure=False), c.submit(small, n, key=f"after_light-{n}")])
    with pytest.raises(sky.TaskTimeout), sky.options(timeout=0.2):
        await c.submit(time.sleep, 100, pure=False)
    with pytest.raises(sky.SlotOutOfMemory), sky.options(memory_limit=100 * MIB):
        await c.submit(burn_and_hold, 2000 * MIB, pure=False)
    with pytest.raises(sky.SlotCrashed):
        await c.submit(crash, pure=False)
    cancelled = c.submit(time.sleep, 1000, key="cancelled-1")
    while cancelled.key not in a.state.tasks or a.state.tasks[cancelled.key].state != "executing":
        await asyncio.sleep(0.01)
    await cancelled.cancel()
    while a.state.executing_count:
        await asyncio.sleep(0.01)
    found = (await sky.statistics(c)).prefixes
    held = found["burn_and_hold"]
    assert before == 1 and (held.count, held.memory_limit_hits, held.crashes) == (3, 1, 0)
    assert took <= held.cpu and took <= held.wall
    assert held.peak_memory >= 200 * MIB
    # its process may keep 64 MiB of what the one before it has freed
    assert found["small"].count == 21 and found["small"].peak_memory < 150 * MIB
    assert found["after_light"].peak_memory < found["Light"].peak_memory - 15 * MIB
    assert found["after_digest"].cpu >= 0
    assert found["sleep"].timeouts == 1 and found["crash"].crashes == 1
    assert "cancelled" not in found


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_prefixes_of_thread_slots(c: Client, s: Scheduler, a: Worker) -> None:
    """The CPU seconds of the task's thread alone."""
    await sky.install(c, sky.Worker(concurrency=1, executor="thread"))
    took = await c.submit(burn_and_hold, MIB, pure=False)
    (held,) = (await sky.statistics(c)).prefixes.values()
    assert (held.count, held.peak_memory) == (1, 0)
    assert 0.1 <= held.cpu <= took + 0.1 and held.cpu <= held.wall + 0.01
