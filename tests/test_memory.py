"""What a worker holds for its slots: parcels and shared memory, looked at from inside."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from dask._task_spec import Alias, Task
from dask.sizeof import sizeof
from distributed import Client, LocalCluster, Worker, wait

import skyward_dask as sky
from skyward_dask.extension.parcel import SEAL_FROM, Parcel
from skyward_dask.extension.worker.node import Node
from skyward_dask.slots.memory import segments
from skyward_dask.slots.own_memory import own_memory
from tests.clusters import gen_cluster

MIB = 1 << 20

PROCESSES = {"plugins": [sky.SkywardPlugin(sky.Worker(concurrency=2, executor="process"))]}


def records(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"name {n}", "tags": ("a", n)} for n in range(count)]


def small_arrays(count: int) -> list[Any]:
    """As many numbers, but in arrays of 512 bytes, and some that are none."""
    return [*(np.ones(64) for _ in range(count // 64)), *map(float, range(64))]


@gen_cluster(client=True, nthreads=[("", 1)], worker_kwargs=PROCESSES)
async def test_a_bag_is_opened_when_its_slots_go(c: Client, s: Any, a: Worker) -> None:
    """A worker that has its own executor back holds no parcels, and neither does who reads them then."""
    bag = c.submit(records, 20_000, pure=False)
    await wait(bag)
    assert isinstance(a.data[bag.key], Parcel) and sizeof(a.data[bag.key]) >= SEAL_FROM
    assert s.tasks[bag.key].nbytes == sizeof(a.data[bag.key])
    assert (len(a.data[bag.key]), a.data[bag.key][7]["id"]) == (20_000, 7)  # as a plugin may read it
    await sky.uninstall(c)
    assert a.data[bag.key] == records(20_000)
    assert await c.submit(lambda given: given[7]["id"], bag) == 7


def test_a_client_in_the_same_process_gets_lists() -> None:
    """With ``inproc://`` objects are handed over as they are."""

    async def check() -> None:
        async with (
            LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, asynchronous=True, dashboard_address=None
            ) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            await sky.install(client, sky.Worker(concurrency=1, executor="process"))
            got = await client.submit(records, 20_000)
            assert type(got) is list and got == records(20_000)
            graph = {"made": Task("made", records, 20_000), "alias": Alias("alias", "made")}
            (alias,) = client.get(graph, ["alias"], sync=False)
            assert type(await alias) is list
            await sky.uninstall(client)

    asyncio.run(check())


@pytest.mark.skipif(not segments.is_supported(), reason="the platform has no shared memory")
@gen_cluster(client=True, nthreads=[("", 1)], worker_kwargs=PROCESSES | {"memory_limit": "16 GiB"})
async def test_shared_memory_is_the_workers(c: Client, s: Any, a: Worker) -> None:
    """It counts once, and is given back when the results are dropped."""
    assert await shared(c, a) < 8 * MIB
    futures = c.map(lambda n: np.full(4 * MIB, n), range(4), pure=False)
    await wait(futures)
    for _ in range(2):  # once more when the worker has looked at them itself
        while not 128 * MIB <= await shared(c, a) <= 136 * MIB:
            await asyncio.sleep(0.02)  # the slots' own memory is as of half a second ago, with what they made
        assert all(int(a.data[f.key].sum()) == n * 4 * MIB for n, f in enumerate(futures))
    del futures
    while await shared(c, a) > 8 * MIB:
        await asyncio.sleep(0.02)


async def shared(client: Client, worker: Worker) -> int:
    """Bytes that a worker counts beside its own process's (here the test's too) and its slots'."""
    status = Path("/proc/self/status").read_text()
    own = sum(int(kib) * 1024 for kib in re.findall(r"(?:RssAnon|RssFile):\s+(\d+) kB", status))
    slots = (await sky.statistics(client)).workers[worker.address].slots
    return int(worker.monitor.get_process_memory()) - own - sum(own_memory(slot.pid or 0) for slot in slots)


@pytest.mark.skipif(not segments.is_supported(), reason="the platform has no shared memory")
@gen_cluster(client=True, nthreads=[("", 1)], worker_kwargs=PROCESSES)
async def test_what_a_run_was_given_goes_with_it(c: Client, s: Any, a: Worker) -> None:
    """Not with the next garbage collection: the next result needs the room."""
    node = Node.of(a)
    assert node is not None and node._shared.pages is not None
    gc.disable()
    try:
        for function in (np.sum, mean_later):
            x = c.submit(np.ones, MIB, pure=False)
            y = await c.submit(function, x, pure=False)
            assert node._shared.pages.resident() >= 8 * MIB
            assert y == MIB or [n async for n in y] == [1]
            x.release()
            del y
            while node._shared.pages.resident():  # or the test's time is over
                await asyncio.sleep(0.02)
    finally:
        gc.enable()


def mean_later(x: Any) -> Iterator[float]:
    yield float(x.mean())


@pytest.mark.skipif(not segments.is_supported(), reason="the platform has no shared memory")
def test_spilling_gives_shared_memory_back() -> None:
    """What is on disk is in memory no longer, and is what it was."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit="700 MiB", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor="process"))
        futures = client.map(lambda n: np.full(4 * MIB, n), range(24), pure=False)
        wait(futures)
        assert all(client.run(lambda dask_worker: len(dask_worker.data.disk)).values())
        sums = client.map(lambda x, n: int(x.sum()) == n * 4 * MIB, futures, range(24), pure=False)
        assert all(client.gather(sums))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "make", "count"),
    [("thread", np.ones, 4000), ("process", np.ones, 4000), ("process", small_arrays, 1000)],
)
def test_dropped_results_give_their_memory_back(
    executor: Any, make: Callable[[int], Any], count: int
) -> None:
    """Of many small ones, between which others live."""

    def resident(dask_worker: Worker) -> int:
        return int(psutil.Process().memory_info().rss)

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(executor=executor))
        client.gather(client.map(make, range(100), pure=False))
        (before,) = client.run(resident).values()
        results = client.map(make, [8192] * count, pure=False)
        wait(results)
        (full,) = client.run(resident).values()
        assert full > before + 50 * MIB
        del results
        while next(iter(client.run(resident).values())) > before + (full - before) / 4:  # or its time is over
            time.sleep(0.1)
