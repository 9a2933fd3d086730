"""A collection survives its worker: nothing that anybody was told is lost, and nothing counts twice."""

from __future__ import annotations

import asyncio
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

import skyward_dask as sky
from tests.sizes import size, sized

pytestmark = pytest.mark.crash


@contextmanager
def cluster_of(workers: int) -> Iterator[tuple[LocalCluster, Client]]:
    """Workers in processes of their own; one that is killed comes back under another address."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor="thread"))
        yield cluster, client


@pytest.fixture
def three() -> Iterator[Client]:
    with cluster_of(3) as (_, client):
        yield client


def in_step(client: Client, *names: str) -> list[Any]:
    """Wait until these collections have standbys that would take over."""
    while True:
        found = [sky.collections(client)[name] for name in names]
        assert not any(each.lost for each in found)
        if all(each.in_step for each in found):
            return found
        time.sleep(0.01)


def harm(client: Client, worker: str, how: signal.Signals = signal.SIGKILL) -> int:
    pid: int = client.run(os.getpid, workers=[worker])[worker]
    os.kill(pid, how)
    return pid


def test_each_increment_counts_once(three: Client, name: str) -> None:
    """Callers in a client and in tasks go on while one host after the other is killed."""
    counter, over = sky.counter(name), threading.Event()
    counter.increment()

    def count() -> list[int]:
        numbers = []
        while not over.is_set():
            numbers.append(counter.increment())
        return numbers

    def count_in_a_task() -> list[int]:
        return [sky.counter(f"{name}-tasks").increment() for _ in range(300)]

    with ThreadPoolExecutor(6) as threads:
        counting = [threads.submit(count) for _ in range(6)]
        tasks = [three.submit(count_in_a_task, pure=False) for _ in range(4)]
        for _ in range(3):
            (found,) = in_step(three, name)
            harm(three, found.hosts[0])
            while sky.collections(three)[name].hosts == found.hosts:
                time.sleep(0.01)
        over.set()
        numbers = sorted(number for each in counting for number in each.result())
    assert numbers == list(range(2, len(numbers) + 2)) and counter.value == len(numbers) + 1
    told = [number for task in tasks for number in task.result()]
    assert len(set(told)) == len(
        told
    )  # a task that ran twice has counted twice, but nobody was told the same
    counter.destroy()


def test_who_waits_goes_on_waiting(name: str) -> None:
    """At the standby, which came with the second worker: for items, room, a lock, a barrier, a value."""
    with cluster_of(1) as (cluster, client), ThreadPoolExecutor(20) as threads:
        q, room, lock = sky.queue(f"{name}-q"), sky.queue(f"{name}-room", 2), sky.lock(f"{name}-lock")
        barrier, d = sky.barrier(f"{name}-b", 3), sky.dict(f"{name}-d")
        names = [each.name for each in (q, room, lock, barrier, d)]
        d["key"] = 1
        lock.acquire()
        fence = lock.fence
        room.put(0)

        def acquire() -> int:
            with Client(cluster, set_as_default=False) as other, sky.lock(lock.name, client=other) as held:
                return held.fence

        getting = [threads.submit(q.get, timeout=200) for _ in range(3)]
        putting = threads.submit(room.put_many, [1, 2, 3])
        acquiring = threads.submit(acquire)
        meeting = [threads.submit(barrier.wait, 200) for _ in range(2)]
        computing, computed = threading.Event(), threading.Event()
        claim = threads.submit(d.get_or_compute, "new", lambda: (computing.set(), computed.wait(200))[1])
        assert computing.wait(200)
        waiting = threads.submit(d.get_or_compute, "new", int)
        in_time = threads.submit(q.get, timeout=200)
        while [sky.collections(client)[each].waiting for each in names] != [4, 1, 1, 2, 1]:
            time.sleep(0.01)
        (host,) = client.nthreads()
        assert not any(sky.collections(client)[each].in_step for each in names)
        cluster.scale(2)
        in_step(client, *names)
        harm(client, host)
        q.put_many(["a", "b", "c", "d"])
        assert sorted(each.result(200) for each in [*getting, in_time]) == ["a", "b", "c", "d"]
        assert barrier.wait(200) == 2 and sorted(each.result(200) for each in meeting) == [0, 1]
        assert [room.get(timeout=200) for _ in range(4)] == [0, 1, 2, 3] and putting.result(200) is None
        computed.set()
        assert claim.result(200) is waiting.result(200) is True and d["key"] == 1
        assert lock.fence == fence
        lock.release()
        assert acquiring.result(200) > fence
        assert q.empty() and room.empty() and not lock.locked()


def test_what_the_dead_held_is_free(three: Client, name: str) -> None:
    """The host dies together with the task that had the lock, an item on its way to it, and a claim."""
    lock, q = sky.lock(name), sky.queue(f"{name}-q")
    assert not lock.locked() and q.empty()
    (found,) = in_step(three, name)

    def hold() -> None:
        sky.lock(name).acquire()
        sky.queue(f"{name}-q").put("held")
        time.sleep(200)

    holding = three.submit(hold, workers=list(found.hosts), pure=False)
    assert q.get(timeout=200) == "held"
    in_step(three, name, f"{name}-q")
    harm(three, found.hosts[0])
    assert lock.acquire(timeout=200)
    lock.release()
    holding.cancel()


def test_two_deaths_are_a_loss(three: Client, name: str) -> None:
    """Until it is destroyed."""
    sky.dict(name)["a"] = 1
    (found,) = in_step(three, name)
    pids = three.run(os.getpid)
    for worker in (*found.hosts, *found.standby):
        os.kill(pids[worker], signal.SIGSTOP)  # so that neither sees the other die
    for worker in (*found.standby, *found.hosts):
        os.kill(pids[worker], signal.SIGKILL)
    with pytest.raises(sky.CollectionLost, match="destroy"):
        sky.dict(name)["a"]
    sky.dict(name).destroy()
    assert not len(sky.dict(name))
    sky.dict(name).destroy()
    three.wait_for_workers(3)


def test_a_host_that_comes_to_again_tells_nothing(three: Client, name: str, tmp_path: Path) -> None:
    """It was stopped, and lost to the cluster: its own tasks and those who ask it directly go elsewhere."""
    counter, told = sky.counter(name), tmp_path / "told"
    counter.increment()
    (found,) = in_step(three, name)

    def count() -> None:
        with told.open("a") as lines:
            while not sky.cancelled():
                print(sky.counter(name).increment(), file=lines, flush=True)

    async def lose(dask_scheduler: Any) -> None:
        await dask_scheduler.remove_worker(found.hosts[0], stimulus_id="lost", close=False)

    with (
        Client(three.scheduler.address, direct_to_workers=True, set_as_default=False) as direct,
        ThreadPoolExecutor(1) as threads,
    ):
        seen, counting = sky.counter(name, client=direct), three.submit(count, workers=list(found.hosts))
        while seen.value < 10:
            time.sleep(0.01)
        pid = harm(three, found.hosts[0], signal.SIGSTOP)
        try:
            reading = threads.submit(lambda: seen.value)
            three.run_on_scheduler(lose)
            numbers = [counter.increment() for _ in range(10)]
            assert numbers[-1] <= seen.value and reading.result(60) >= 10
        finally:
            os.kill(pid, signal.SIGCONT)
        while psutil.pid_exists(pid):  # it has heard that the scheduler has given it up
            assert numbers[-1] <= seen.value
        counting.cancel()
        numbers += map(int, told.read_text().split())
        assert len(numbers) == len(set(numbers)) and max(numbers) <= counter.value


def test_a_host_that_dies_while_its_collection_is_destroyed(three: Client, name: str) -> None:
    """Is no loss: the collection ends, and the next one is empty."""
    sky.dict(name)["a"] = 1
    (found,) = in_step(three, name)
    pid = harm(three, found.hosts[0], signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        destroying = threads.submit(sky.dict(name).destroy)
        while name in sky.collections(three):
            pass
        os.kill(pid, signal.SIGKILL)
        assert destroying.result(200) is None
    assert sky.dict(name) == {} and not sky.collections(three)[name].lost
    sky.dict(name).destroy()


def test_iteration_goes_on(three: Client, name: str) -> None:
    """Each key that stays comes once, though the host is killed between two pages."""
    d = sky.dict(name)
    d.update((number, b"x" * 100) for number in range(20_000))
    (found,) = in_step(three, name)
    seen = []
    for number in d:
        seen.append(number)
        if number == 5:
            harm(three, found.hosts[0])
    assert seen == list(range(20_000))
    d.destroy()


def test_a_silent_standby_is_replaced(name: str) -> None:
    """Writes wait for it no longer than the setting says."""
    with dask.config.set({"skyward.collections.standby-timeout": "1s"}), cluster_of(3) as (_, client):
        counter = sky.counter(name)
        counter.increment()
        (found,) = in_step(client, name)
        pid = harm(client, found.standby[0], signal.SIGSTOP)
        assert [counter.increment() for _ in range(10)] == list(range(2, 12))
        (other,) = in_step(client, name)
        assert other.standby != found.standby and other.hosts == found.hosts
        silent = [pid, harm(client, other.standby[0], signal.SIGSTOP)]
        assert counter.increment() == 12  # the next to be asked says nothing, either
        for pid in silent:
            os.kill(pid, signal.SIGCONT)
        in_step(client, name)
        harm(client, other.hosts[0])
        assert counter.increment() == 13


def test_a_collection_that_has_just_moved_is_not_alone(three: Client, name: str) -> None:
    """Its old host is its standby until another is filled: the new one may be killed meanwhile."""
    d, over, pids = sky.dict(name), threading.Event(), three.run(os.getpid)
    d.update((number, bytes([number]) * (1 << 20)) for number in range(60))

    def write(key: str) -> int:
        count = 0
        while not over.is_set():
            count += 1
            d[key] = count
        return count

    (found,) = in_step(three, name)
    with ThreadPoolExecutor(3) as threads:
        writing = {key: threads.submit(write, key) for key in ("a", "b")}
        retiring = threads.submit(three.retire_workers, list(found.hosts))
        while (moved := sky.collections(three)[name]).hosts == found.hosts:
            pass
        os.kill(pids[moved.hosts[0]], signal.SIGKILL)
        retiring.result(200)
        in_step(three, name)
        over.set()
        assert all(d[key] == each.result(200) for key, each in writing.items())
    assert all(set(d[number]) == {number} for number in range(60)) and len(d) == 62
    d.destroy()


@sized
def test_a_big_collection_is_copied_while_it_is_written(name: str) -> None:
    """Values of 1 MiB, and one larger than all that may wait; what is written meanwhile is in the copy."""
    large = b"large" * (size(20, 210) << 20)
    with cluster_of(1) as (cluster, client), ThreadPoolExecutor(1) as threads:
        d, over = sky.dict(name), threading.Event()
        for number in range(100):
            d[number] = bytes([number]) * (1 << 20)
        d["large"] = large

        def write() -> int:
            count = 0
            while not over.is_set():
                count += 1
                d[random.randrange(100)] = bytes([count % 256]) * 1000
                d["count"] = count
            return count

        writing = threads.submit(write)
        (host,) = client.nthreads()
        cluster.scale(2)
        in_step(client, name)
        written = d["count"]
        d["larger"] = large + b"r"
        assert d["count"] > written
        over.set()
        count = writing.result(200)
        harm(client, host)
        assert d["count"] == count and len(d) == 103
        assert d.pop("large") == large and d.pop("larger") == large + b"r"
        assert all(len(set(value)) == 1 for key, value in d.items() if key != "count")


@sized
def test_waiters_keep_their_order(three: Client, name: str) -> None:
    """Of hundreds at a queue, a lock and a barrier; whoever has waited long enough is in nobody's way."""
    waiters, names = size(200, 2000), [f"{name}-q", f"{name}-lock", f"{name}-b"]

    async def wait() -> None:
        async with Client(three.scheduler.address, asynchronous=True, set_as_default=False) as client:
            q, lock = sky.queue(names[0], client=client), sky.lock(names[1], client=client)
            barrier, granted = sky.barrier(names[2], waiters + 1, client=client), list[int]()

            async def acquire(number: int) -> None:
                async with lock:
                    granted.append(number)

            assert await q.empty_async() and await lock.acquire_async()
            assert not await barrier.n_waiting_async()
            brief = asyncio.ensure_future(q.get_async(timeout=3))
            getting = [asyncio.ensure_future(q.get_async(timeout=200)) for _ in range(waiters)]
            acquiring = [asyncio.ensure_future(acquire(number)) for number in range(waiters)]
            meeting = [asyncio.ensure_future(barrier.wait_async(timeout=200)) for _ in range(waiters)]
            await asyncio.to_thread(lose_each_host, three, names, waiters)
            with pytest.raises(queue.Empty):
                await brief
            await q.put_many_async(range(waiters))
            assert await asyncio.gather(*getting) == list(range(waiters))
            await lock.release_async()
            await asyncio.gather(*acquiring)
            assert granted == list(range(waiters))
            assert await barrier.wait_async() == waiters
            assert await asyncio.gather(*meeting) == list(range(waiters))

    asyncio.run(wait())


def lose_each_host(client: Client, names: list[str], waiters: int) -> None:
    """When so many wait at each, kill the hosts that they have."""
    while min(sky.collections(client)[each].waiting for each in names) < waiters:
        time.sleep(0.01)
    hosts = {each: found.hosts for each, found in zip(names, in_step(client, *names), strict=True)}
    for number, each in enumerate(names):
        found = in_step(client, *names)[number]  # of the others too: it may have taken their hosts' place
        if found.hosts == hosts[each]:
            harm(client, found.hosts[0])
            while sky.collections(client)[each].hosts == found.hosts:
                time.sleep(0.01)
