"""Slots change on a live cluster: no gap, no lost task, and books that are right."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Event, Nanny, Scheduler, Worker, get_worker

import skyward_dask as sky
from skyward_dask.extension.worker.node import Node
from tests.clusters import PATIENCE, gen_cluster
from tests.sizes import size, sized
from tests.test_install import PROCESS, block, books


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_resize(c: Client, s: Scheduler, a: Worker, b: Worker) -> None:
    """All workers, one by its address or its name; the books agree at each return."""
    await sky.install(c, PROCESS)
    await sky.resize(c, 3)
    assert books(s) == (6, 6, 6) and a.state.nthreads == b.state.nthreads == 3
    await sky.resize(c, 1, workers=[a.address])
    assert books(s) == (4, 4, 4) and a.state.nthreads == 1
    pids = await c.gather([c.submit(os.getpid, workers=a.address, pure=False) for _ in range(10)])
    assert len(set(pids)) == 1 and os.getpid() not in pids
    with pytest.raises(sky.InstallError, match="no such worker"):
        await sky.resize(c, 2, workers=["tcp://127.0.0.1:1"])
    with pytest.raises(sky.InstallError, match="nobody: there is no such worker"):
        await sky.resize(c, 2, workers=["nobody"])
    with pytest.raises(sky.ConfigurationError, match="list of addresses or names"):
        sky.resize(c, 2, workers=a.address)
    with pytest.raises(sky.ConfigurationError, match="positive integer"):
        await sky.resize(c, 0)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_resize_needs_slots_of_ours(c: Client, s: Scheduler, a: Worker) -> None:
    """A worker that has its own executor is named, and keeps what it had."""
    with pytest.raises(sky.InstallError, match=f"{a.address}: .*call install first"):
        await sky.resize(c, 2)
    assert books(s) == (1, 1, 1)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_a_running_task_above_a_lowered_number_ends_first(c: Client, s: Scheduler, a: Worker) -> None:
    """In the slot that it began in, which then goes."""
    await sky.install(c, PROCESS)
    fifos = [[f"{a.local_directory}/{name}-{n}" for name in ("started", "release")] for n in range(2)]
    futures = []
    for started, release in fifos:
        os.mkfifo(started)
        os.mkfifo(release)
        futures.append(c.submit(block, started, release, pure=False))
    for started, _ in fifos:
        await asyncio.to_thread(Path(started).read_text)
    before = {slot.pid for slot in (await sky.statistics(c)).workers[a.address].slots}
    await sky.resize(c, 1)
    assert books(s) == (1, 1, 1)
    for _, release in fifos:
        await asyncio.to_thread(Path(release).write_text, "")
    assert set(await c.gather(futures)) == before
    while len((await sky.statistics(c)).workers[a.address].slots) != 1:
        await asyncio.sleep(0.01)


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_the_cluster_remembers_a_resize(c: Client, s: Scheduler, a: Worker) -> None:
    """For workers that join later, until the next install; one that was named keeps its own number."""
    await sky.install(c, PROCESS)
    async with Worker(s.address, nthreads=1, name="small"):
        await sky.resize(c, 3)
        await sky.resize(c, 1, workers=["small"])
        assert books(s) == (4, 4, 4)
    async with Worker(s.address, nthreads=1, name="small") as again:
        assert again.state.nthreads == 1 and Node.of(again).config.concurrency == 1
    async with Worker(s.address, nthreads=1) as other:
        assert other.state.nthreads == 3
        await sky.install(c, PROCESS)
        assert other.state.nthreads == 2 and books(s) == (4, 4, 4)
    await sky.resize(c, 5)
    await sky.uninstall(c)
    async with Worker(s.address, nthreads=1, plugins={sky.SkywardPlugin(PROCESS)}) as own:
        assert own.state.nthreads == 2


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)], Worker=Nanny)
async def test_a_nanny_brings_back_what_the_cluster_was_last_told(c: Client, s: Scheduler, a: Any) -> None:
    """Not what was installed before."""
    await sky.install(c, PROCESS)
    await sky.resize(c, 3)
    await c.restart()
    assert books(s) == (3, 3, 3)
    assert await c.submit(os.getpid, pure=False) != a.pid


@sized
@pytest.mark.slow
@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)] * 2, timeout=size(PATIENCE, 800))
async def test_changes_at_random_under_load(c: Client, s: Scheduler, a: Worker, b: Worker) -> None:
    """Every result is right, no task is outside its place, the sums of the scheduler are exact."""
    chance = random.Random(4)
    done = asyncio.Event()
    results: list[int] = []

    async def load() -> None:
        n = 0
        while not done.is_set():
            results.extend(await c.gather(c.map(lambda x: x + 1, range(n, n + 20), pure=False)))
            n += 20

    async def change() -> None:
        for _ in range(size(25, 100)):
            n = chance.randint(1, 4)
            kind = chance.choice(["process", "thread"])
            await chance.choice(
                [
                    lambda n=n, kind=kind: sky.install(c, sky.Worker(concurrency=n, executor=kind)),
                    lambda n=n: _resize(c, n),
                    lambda: sky.uninstall(c),
                ]
            )()
            assert len(set(books(s))) == 1

    loading = asyncio.create_task(load())
    await change()
    done.set()
    await loading
    assert results == list(range(1, len(results) + 1)) and results
    await sky.uninstall(c)
    assert books(s) == (4, 4, 4)


async def _resize(client: Client, slots: int) -> None:
    try:
        await sky.resize(client, slots)
    except sky.InstallError:  # nothing is installed at the moment
        assert (await sky.statistics(client)).workers == {}


def test_an_adaptive_compute() -> None:
    """Grows under load, from its minimum."""
    worker = sky.Worker(concurrency=1, executor="process")
    with sky.Compute(nodes=(1, 2), worker=worker) as compute:
        client = compute.client
        assert len(client.nthreads()) == 1

        def meet(me: int) -> int:
            Event(f"here-{me}").set()
            assert Event(f"here-{1 - me}").wait(timeout=200)
            return os.getppid()

        assert len(set(client.gather(client.map(meet, range(2), pure=False)))) == 2


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_a_coroutine_runs_elsewhere_when_its_worker_closes(
    c: Client, s: Scheduler, a: Worker, b: Worker
) -> None:
    """As in Dask: the worker cancels it, which is no error of the task's."""
    await sky.install(c, sky.Worker(executor="thread"))

    async def place(begun: Event) -> str:
        if not await begun.is_set():
            await begun.set()
            await asyncio.Event().wait()
        return get_worker().address

    begun = Event()
    future = c.submit(place, begun)
    await begun.wait()
    first, other = (a, b) if a.state.executing_count else (b, a)
    await first.close()
    assert await future == other.address
