"""Where no cluster is shared: workers in the test's own process, a cluster of `Compute`'s, and none."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest
from distributed import Client, LocalCluster
from distributed.utils_test import gen_cluster

import skyward_dask as sky
from skyward_dask.extension.attending import Attendant


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 2)
async def test_in_gen_cluster(c: Any, s: Any, a: Any, b: Any) -> None:
    """On workers that have no slots of ours, several in one process; nothing is left behind."""
    await sky.counter("x").increment_async(2)
    futures = c.map(lambda n: sky.counter("x").increment(n), range(5), pure=False)
    await c.gather(futures)
    assert await sky.counter("x").value_async() == 12
    assert [name for (name,) in [(each,) for each in await sky.collections(c)]] == ["x"]
    assert sum(map(len, (a.state.actors, b.state.actors))) == 1


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_destroying_leaves_nothing(c: Any, s: Any, a: Any) -> None:
    """No actor in the worker, no task in the scheduler."""
    d = sky.dict("x", shards=3)
    await d.setitem_async(1, 1)
    assert len(a.state.actors) == len(s.tasks) == 3
    await d.destroy_async()
    while a.state.actors or s.tasks:
        await asyncio.sleep(0.01)


def test_a_cluster_of_threads() -> None:
    """Its workers and its client are one process, and its addresses inproc://."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        futures = client.map(lambda n: sky.counter("x").increment(n), range(5), pure=False)
        client.gather(futures)
        assert sky.counter("x").value == 10
        with sky.lock("l"):
            assert client.submit(lambda: sky.lock("l").acquire(timeout=0.01), pure=False).result() is False


def test_a_client_that_closes_meanwhile() -> None:
    """Who waits in another thread gets an error, and so does who comes afterwards."""
    with LocalCluster(n_workers=1, dashboard_address=None) as cluster, ThreadPoolExecutor(1) as threads:
        with Client(cluster) as client:
            q = sky.queue("q")
            q.qsize()
            waiter = threads.submit(q.get)
            while not sky.collections(client)["q"].waiting:
                pass
        with pytest.raises((CancelledError, sky.CollectionLost)):  # whichever is faster: the word, or the end
            waiter.result(timeout=30)
        with pytest.raises(sky.ConfigurationError, match="closed"):
            q.get()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_last_words_that_come_after_the_end(c: Any, s: Any, a: Any) -> None:
    """A client's call that is overtaken by the word of its end takes nothing, for nobody would free it."""
    lock = sky.lock("l")
    assert not await lock.locked_async()
    Attendant.of(a).gone(c.id)
    with pytest.raises(sky.CollectionLost):
        await lock.acquire_async(timeout=5)
    async with Client(s.address, asynchronous=True) as other:
        assert await sky.lock("l", client=other).acquire_async(timeout=5)
        await sky.lock("l", client=other).release_async()


def test_compute_opens_collections() -> None:
    """In its cluster, by name."""
    with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:
        compute.counter("x").increment()
        assert sky.counter("x").value == 1  # its client is the current one meanwhile
        assert compute.dict("y", shards=2) == {} and len(compute.set("z")) == 0
        assert compute.queue("q", 1).empty() and compute.barrier("b", 1).wait() == 0
        assert not compute.lock("l").locked()


def test_without_a_cluster_there_is_no_collection(name: str) -> None:
    """A program without a client says what to do."""
    with pytest.raises(sky.ConfigurationError, match="Client"):
        len(sky.dict(name))
