"""Large collections, and many who wait at one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator

import pytest
from distributed import Client, LocalCluster, wait

import skyward_dask as sky
from skyward_dask.shared.events import Call, Caller
from skyward_dask.shared.home import Home
from tests.shared.large import filled, read

#: Seconds for what takes one or two when the machine does nothing else.
_PATIENCE = 200.0


@pytest.fixture(scope="module")
def shared_client() -> Iterator[Client]:
    """Of two workers, whose slots are threads if nothing else is said."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor="thread"))
        yield client


def operations(client: Client, name: str) -> int:
    return int(sky.collections(client)[name].operations)


# --- many keys -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_million_keys(shared_client: Client, name: str) -> None:
    """Go in by `update`, are counted at once, and come out in pages; an operation stays one operation."""
    keys, batch = 1_000_000, 100_000
    shared = sky.dict(name, shards=2)
    for first in range(0, keys, batch):
        shared.update({f"key-{number}": b"%0100d" % number for number in range(first, first + batch)})
    assert len(shared) == keys
    before = operations(shared_client, name)
    assert sum(int(value) for value in shared.values()) == keys * (keys - 1) // 2
    pages = operations(shared_client, name) - before
    assert pages < 200  # of 10,000 entries, or of 1 MiB of values
    before = operations(shared_client, name)
    assert shared["key-7"] == b"%0100d" % 7
    shared["key-7"] = b"other"
    assert "key-8" in shared and shared.pop("key-8") is not None
    assert operations(shared_client, name) - before == 4
    shared.destroy()


def _home_with(keys: int) -> Callable[..., object]:
    """Asks a home of so many keys."""
    home, caller = Home("dict", {}), Caller("test")

    def ask(operation: str, *arguments: object) -> object:
        call = Call(("test", 1), caller, operation, arguments)
        return home.apply(call).answers[call.id][1]

    ask("put_many", [(number, b"x" * 100) for number in range(keys)])
    return ask


def _least_seconds(ask: Callable[..., object]) -> float:
    """For a hundred operations of each kind on one key; the best of some: others use the machine too."""
    found = []
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(100):
            ask("put", 5, b"y")
            ask("get", 5)
            ask("contains", 5)
            ask("pop", 5)
            ask("size")
        found.append(time.perf_counter() - started)
    return min(found)


def test_an_operation_costs_the_same_with_a_million_keys() -> None:
    """At its home, within the noise: to look at all keys would take a hundred thousand times as long."""
    few, many = _home_with(10), _home_with(1_000_000)
    assert _least_seconds(many) < 5 * _least_seconds(few)


# --- large values ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_large_values_spread_over_the_workers(shared_client: Client, name: str) -> None:
    """128 values of 1 MiB; ``python -m tests.shared.large`` has 2 GiB."""
    shared = filled(sky.dict(name, shards=4), mebibytes=128)
    assert len(set(sky.collections(shared_client)[name].hosts)) == 2
    assert read(shared) == 128 << 20
    assert len(shared.pop(5)) == 1 << 20
    shared.destroy()


# --- many who wait -----------------------------------------------------------------------------------------


async def all_wait(client: Client, name: str, count: int) -> None:
    """Until so many calls wait; nobody tells when."""
    deadline = time.monotonic() + _PATIENCE
    while (await sky.collections(client))[name].waiting < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.slow
def test_ten_thousand_wait_at_one_queue(shared_client: Client, name: str) -> None:
    """In one client, and each gets an item."""
    count = 10_000

    async def main() -> list[int]:
        async with Client(shared_client.scheduler.address, asynchronous=True) as client:
            shared = sky.queue(name)
            await shared.put_async(-1)
            assert await shared.get_async() == -1
            waiting = [asyncio.ensure_future(shared.get_async()) for _ in range(count)]
            await all_wait(client, name, count)
            await shared.put_many_async(range(count))
            return await asyncio.wait_for(asyncio.gather(*waiting), _PATIENCE)

    assert asyncio.run(main()) == list(range(count))
    sky.queue(name).destroy()


@pytest.mark.slow
def test_waiters_hold_no_connection(shared_client: Client, name: str) -> None:
    """Two thousand wait from one worker: its other calls, and Dask's own transfers to it, go on."""
    count = 2_000
    shared = sky.queue(name)
    shared.put(None)
    shared.get()
    (host,) = sky.collections(shared_client)[name].hosts
    (other,) = set(shared_client.scheduler_info()["workers"]) - {host}

    async def take() -> int:
        gets = [asyncio.ensure_future(sky.queue(name).get_async()) for _ in range(count)]
        return sum(await asyncio.gather(*gets))

    taken = shared_client.submit(take, workers=[other], pure=False)
    deadline = time.monotonic() + _PATIENCE
    while sky.collections(shared_client)[name].waiting < count:
        assert time.monotonic() < deadline
    started = time.monotonic()
    data = shared_client.submit(os.urandom, 1 << 20, workers=[host], pure=False)
    assert shared_client.submit(len, data, workers=[other], pure=False).result(timeout=_PATIENCE) == 1 << 20
    with sky.options(executor="thread"):
        task = shared_client.submit(lambda: sky.counter(name + "-c").increment(), workers=[other], pure=False)
    assert task.result(timeout=_PATIENCE) == 1
    shared.put_many([1] * count)
    assert taken.result(timeout=_PATIENCE) == count
    assert time.monotonic() - started < _PATIENCE
    sky.counter(name + "-c").destroy()
    shared.destroy()


@pytest.mark.slow
def test_a_barrier_of_sixteen_in_sixteen_slots(name: str) -> None:
    """Of one worker: none of those who wait keeps another one's slot, or the worker's threads, to itself."""
    parties = 16
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=parties, executor="process"))
        meeting = client.map(
            lambda _: (sky.barrier(name, parties).wait(_PATIENCE), os.getpid()), range(parties), pure=False
        )
        wait(meeting)
        indices, pids = zip(*client.gather(meeting), strict=True)
        assert sorted(indices) == list(range(parties)) and len(set(pids)) == parties
