"""Workers leave while collections live on them: these move first, and what else they hold."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from itertools import product
from time import sleep
from typing import Any

import pytest
from distributed import Client, LocalCluster, Scheduler, Status, Worker

import skyward_dask as sky
from skyward_dask.extension.collections.directory_messages import GiveWay, Lead
from tests.clusters import gen_cluster

#: Dask looks every two seconds otherwise whether all has moved.
QUICK = {"distributed.scheduler.active-memory-manager.interval": "50 ms"}
#: `rebalance` looks at what Dask manages, and at the smallest difference.
BALANCED = {
    "distributed.worker.memory.rebalance.measure": "managed",
    "distributed.worker.memory.rebalance.sender-min": 0,
    "distributed.worker.memory.rebalance.sender-recipient-gap": 0,
}
cluster_of_three = partial(gen_cluster, client=True, nthreads=[("127.0.0.1", 1)] * 3, config=QUICK)


async def host_of(client: Client, name: str) -> str:
    """Make a counter, and say where it lives."""
    await sky.counter(name, client=client).increment_async()
    (host,) = (await sky.collections(client))[name].hosts
    return str(host)


async def told(client: Client) -> list[tuple[str, str, str]]:
    """What operators have been told of hosts."""
    events = await client.get_events("skyward")
    return [(e["action"], e["worker"], *e["collections"]) for _, e in events if "collections" in e]


async def in_step(client: Client, name: str) -> str:
    """Wait for the collection's standby; returns its worker."""
    while not (found := (await sky.collections(client))[name]).in_step:
        await asyncio.sleep(0.01)
    return found.standby[0]


@pytest.mark.parametrize("by", ["addresses", "names", "the scheduler", "a lifetime"])
def test_a_host_moves_with_its_data(by: str) -> None:
    """While it is used; and then it is retired, as any worker."""

    @cluster_of_three()
    async def test(c: Client, s: Scheduler, *workers: Worker) -> None:
        host, counter = await host_of(c, "kept"), sky.counter("kept", client=c)
        data = await c.scatter(list(range(20)), workers=[host])
        (leaving,) = (worker for worker in workers if worker.address == host)
        counting = [asyncio.ensure_future(count(counter)) for _ in range(3)]
        if by == "addresses":
            assert set(await c.retire_workers([host])) == {host}
        elif by == "names":
            assert set(await c.retire_workers(names=[s.workers[host].name])) == {host}
        elif by == "the scheduler":
            assert set(await s.retire_workers(workers=[host])) == {host}
        else:
            await leaving.close_gracefully()
        for each in counting:
            each.cancel()
        numbers = [number for each in await asyncio.gather(*counting) for number in each]
        assert len(numbers) == len(set(numbers)) and await counter.value_async() >= max(numbers)
        assert await c.gather(data) == list(range(20))
        await in_step(c, "kept")
        assert host not in s.workers and await told(c) == []

    test()


async def count(counter: Any) -> list[int]:
    """Increment until cancelled."""
    numbers: list[int] = []
    with suppress(asyncio.CancelledError):
        while True:
            numbers.append(await counter.increment_async())
    return numbers


@pytest.mark.parametrize("calls", [1, 2])
def test_both_copies_move_at_a_time(calls: int) -> None:
    """When the host and the standby are retired, by one call or by two, the last worker has all."""

    @cluster_of_three()
    async def test(c: Client, s: Scheduler, *workers: Worker) -> None:
        leaving = [await host_of(c, "kept"), await in_step(c, "kept")]
        (last,) = set(s.workers) - set(leaving)
        data = await c.scatter(list(range(30)))
        parts = [leaving] if calls == 1 else [[each] for each in leaving]
        retired = await asyncio.gather(*(c.retire_workers(part) for part in parts))
        assert [set(each) for each in retired] == [set(part) for part in parts]
        assert set().union(*(await c.who_has(data)).values()) == {last}
        found = (await sky.collections(c))["kept"]
        assert (found.hosts, found.standby, found.in_step) == ((last,), (), False)
        assert await sky.counter("kept", client=c).increment_async() == 2

    test()


@cluster_of_three()
async def test_a_standby_stays_until_another_is_in_step(c: Client, s: Scheduler, *workers: Worker) -> None:
    """At no moment is there one copy only, though a worker leaves that has the other."""
    d = sky.dict("kept", client=c)
    await d.update_async((number, b"x" * 1000) for number in range(20_000))
    standby = await in_step(c, "kept")
    retiring = asyncio.ensure_future(c.retire_workers([standby]))
    written, seen = 0, set()
    while not retiring.done():
        await d.setitem_async(written, b"y")
        written += 1
        seen.add((await sky.collections(c))["kept"].in_step)
    assert set(await retiring) == {standby} and seen == {True}
    (found,) = set(s.workers) - set((await sky.collections(c))["kept"].hosts)
    assert await in_step(c, "kept") == found
    await c.retire_workers((await sky.collections(c))["kept"].hosts)  # what has it now has all
    assert [await d.getitem_async(number) for number in range(written + 1)] == [b"y"] * written + [
        b"x" * 1000
    ]


#: In which question of the directory's a worker is lost, before or after it is answered, and which worker.
LOSSES = [*product((GiveWay, Lead), ("before", "after"), ("host", "standby"))]


@pytest.mark.parametrize(("question", "when", "which"), LOSSES)
def test_a_worker_is_lost_while_two_change_places(question: Any, when: str, which: str) -> None:
    """The other one has all that anybody was told, and the move goes on from there."""

    @gen_cluster(client=True, nthreads=[("127.0.0.1", 1)] * 4, config=QUICK)
    async def test(c: Client, s: Scheduler, *workers: Worker) -> None:
        host, counter = await host_of(c, "kept"), sky.counter("kept", client=c)
        places = {"host": host, "standby": await in_step(c, "kept")}
        asked = next(w for w in workers if w.address == places["host" if question is GiveWay else "standby"])
        take = asked.handlers[question.op]

        async def take_and_lose(**values: Any) -> Any:
            asked.handlers[question.op] = take
            if when == "before":
                await s.remove_worker(places[which], stimulus_id="lost")
            answer = take(**values)
            answer = await answer if isawaitable(answer) else answer
            if when == "after":
                await s.remove_worker(places[which], stimulus_id="lost")
            return answer

        asked.handlers[question.op] = take_and_lose
        counting = [asyncio.ensure_future(count(counter)) for _ in range(3)]
        while await counter.value_async() < 4:
            pass
        await c.retire_workers([host])
        for each in counting:
            each.cancel()
        numbers = [number for each in await asyncio.gather(*counting) for number in each]
        assert asked.handlers[question.op] is take
        assert len(numbers) == len(set(numbers)) and await counter.value_async() >= max(numbers)
        assert host not in s.workers and await in_step(c, "kept") in s.workers
        assert sum(len(ws.actors) for ws in s.workers.values()) == 2

    test()


@cluster_of_three(config=QUICK | BALANCED)
async def test_both_copies_are_managed_memory(c: Client, s: Scheduler, *workers: Worker) -> None:
    """Answers that are kept, too; and `rebalance` moves none of it."""
    d, small = sky.dict("kept", client=c), [sky.counter(name, client=c) for name in "abc"]
    for each in small:
        await each.increment_async()
    await d.update_async((number, bytes(1000)) for number in range(10_000))
    standby = await in_step(c, "kept")
    while not (found := (await sky.collections(c))["kept"]).nbytes == found.standby_nbytes >= 10e6:
        await asyncio.sleep(0.01)
    copies = {*found.hosts, standby}
    while {worker for worker in s.workers if s.workers[worker].memory.managed >= 10e6} != copies:
        await asyncio.sleep(0.01)
    assert {worker.address for worker in workers if worker.state.nbytes >= 10e6} == copies
    for worker in s.workers:
        data = await c.scatter([bytes(1_000_000)] * 30, workers=[worker], hash=False)
        await c.rebalance()
        del data
    assert await d.getitem_async(0) == bytes(1000) and (await sky.collections(c))["kept"].in_step
    assert [await each.increment_async() for each in small] == [2] * 3
    for each in (d, *small):
        await each.destroy_async()
    while any(ws.nbytes or ws.actors for ws in s.workers.values()) or any(w.state.nbytes for w in workers):
        await asyncio.sleep(0.01)


@cluster_of_three()
async def test_a_host_stays_where_no_other_worker_can_take_it(
    c: Client, s: Scheduler, *workers: Worker
) -> None:
    """`retire_workers` says so as it does of all workers that can't go, and operators read why."""
    for worker in workers[1:]:
        worker.status = Status.paused
    while {ws.status for ws in s.workers.values()} != {Status.running, Status.paused}:
        await asyncio.sleep(0.01)
    host = await host_of(c, "kept")
    assert host == workers[0].address and await c.retire_workers([host]) == {}
    assert await told(c) == [("keep-host", host, "counter 'kept'")]
    assert await c.submit(lambda: 1, workers=[host], pure=False) == 1
    assert await sky.counter("kept", client=c).increment_async() == 2


@cluster_of_three()
async def test_hosts_are_not_offered_for_closing(c: Client, s: Scheduler, *workers: Worker) -> None:
    """`adapt` takes others while there are any, then none; operators read why, once."""
    host = await host_of(c, "kept")
    others = set(s.workers) - {host}
    data = await c.scatter(list(range(30)))
    assert set(s.workers_to_close(n=2)) == set(s.workers_to_close(n=3)) == others
    # without a number, as many as leave enough memory: the host's counts
    assert set(s.workers_to_close()) == others and await c.scheduler.adaptive_target() == 1
    assert await told(c) == [("spare-host", host, "counter 'kept'")]
    await sky.counter("kept", client=c).destroy_async()
    assert host in s.workers_to_close(n=3)
    del data


def test_scaling_down_loses_nothing() -> None:
    """`scale` closes workers by name; their collections move to the others, as what else they hold."""
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        names = ("first", "second", "third")
        for name in names:
            sky.counter(name).increment()
        data = client.scatter(list(range(30)))
        cluster.scale(1)
        wait_for(client, 1)
        assert client.gather(data) == list(range(30))
        assert [sky.counter(name).increment() for name in names] == [2] * 3
        cluster.scale(2)
        for name in names:
            while not sky.collections(client)[name].in_step:
                sleep(0.01)


def test_adapting_keeps_collections() -> None:
    """While the load goes up and down, and they are used."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        counter, over = sky.counter("kept"), threading.Event()

        def use() -> list[int]:
            numbers = [counter.increment()]
            while not over.is_set():
                numbers.append(counter.increment())
            return numbers

        using = threads.submit(use)
        cluster.adapt(minimum=1, maximum=3, interval="50ms", wait_count=2, target_duration="1s")
        load = client.map(sleep, [0.2] * 40, pure=False)
        wait_for(client, 3)
        while not sky.collections(client)["kept"].in_step:
            sleep(0.01)
        client.gather(load)
        wait_for(client, 1)
        over.set()
        numbers = using.result()
        assert numbers == list(range(1, counter.value + 1))
        actions = {event["action"] for _, event in client.get_events("skyward")}
        assert actions <= {"in-step", "move", "spare-host"}


def wait_for(client: Client, workers: int) -> None:
    while len(client.nthreads()) != workers:
        sleep(0.01)


@pytest.mark.parametrize("ending", ["restart and close", "scale"])
def test_a_cluster_that_ends_tells_nothing(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    """There is nobody to move anything to, and no warning about it."""
    root = logging.getLogger("distributed.scheduler")
    root.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING, root.name)
    try:
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=False
            ) as cluster,
            Client(cluster) as client,
        ):
            sky.counter("one").increment()
            if ending == "scale":
                cluster.scale(0)
                wait_for(client, 0)
            else:
                client.restart()
                sky.counter("two").increment()
            assert {event["action"] for _, event in client.get_events("skyward")} <= {"in-step"}
    finally:
        root.removeHandler(caplog.handler)
    assert not [r for r in caplog.records if r.name.startswith(root.name) and r.levelno >= logging.WARNING]
