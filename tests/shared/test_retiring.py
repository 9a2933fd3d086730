"""Workers leave while collections live on them: their other data moves first, and the reason is told."""

from __future__ import annotations

import logging
from functools import partial

import pytest
from distributed import Client, LocalCluster, Scheduler, Worker

import skyward_dask as sky
from tests.clusters import gen_cluster

#: Dask looks every two seconds otherwise whether all has moved.
QUICK = {"distributed.scheduler.active-memory-manager.interval": "50 ms"}
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


@pytest.mark.parametrize("by", ["addresses", "names", "the scheduler"])
def test_a_host_stays_and_its_other_data_moves(by: str) -> None:
    """`retire_workers` says so as it does of all workers that can't go, and operators read why."""

    @cluster_of_three()
    async def test(c: Client, s: Scheduler, *workers: Worker) -> None:
        host = await host_of(c, "kept")
        data = await c.scatter(list(range(20)), workers=[host])
        name = s.workers[host].name
        if by == "addresses":
            assert await c.retire_workers([host]) == {}
        elif by == "names":
            assert await c.retire_workers(names=[name]) == {}
        else:
            assert await s.retire_workers(workers=[host]) == {}
        assert not any({host} & set(where) for where in (await c.who_has(data)).values())
        assert await told(c) == [("keep-host", host, "counter 'kept'")]
        assert await c.submit(lambda: 1, workers=[host], pure=False) == 1
        assert await sky.counter("kept", client=c).increment_async() == 2
        assert await c.gather(data) == list(range(20))

    test()


@cluster_of_three()
async def test_a_host_stays_where_others_go(c: Client, s: Scheduler, *workers: Worker) -> None:
    """Of several that are to be retired at a time those go that can, and nobody's data with them."""
    host = await host_of(c, "kept")
    (other, last) = set(s.workers) - {host}
    data = await c.scatter(list(range(30)))
    assert set(await c.retire_workers([host, other])) == {other}
    assert set().union(*(await c.who_has(data)).values()) == {last}
    assert await sky.counter("kept", client=c).value_async() == 1


@cluster_of_three()
async def test_who_closes_a_worker_anyway_loses_its_collections_only(
    c: Client, s: Scheduler, *workers: Worker
) -> None:
    """A worker at the end of its lifetime doesn't ask whether it may go."""
    host = await host_of(c, "lost")
    data = await c.scatter(list(range(20)), workers=[host])
    (worker,) = (w for w in workers if w.address == host)
    await worker.close_gracefully()
    assert await c.gather(data) == list(range(20))
    assert await told(c) == [("lose-host", host, "counter 'lost'")]
    with pytest.raises(sky.CollectionLost):
        await sky.counter("lost", client=c).value_async()


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


def test_scaling_down_takes_hosts_last() -> None:
    """`scale` closes the workers that were added last; what they hold besides moves to the others."""
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.counter("first").increment()
        sky.counter("second").increment()
        data = client.scatter(list(range(30)))
        cluster.scale(2)
        wait_for(client, 2)
        assert [sky.counter(name).value for name in ("first", "second")] == [1, 1]
        cluster.scale(1)
        wait_for(client, 1)
        assert client.gather(data) == list(range(30)) and sky.counter("first").value == 1
        with pytest.raises(sky.CollectionLost):
            sky.counter("second").increment()


def wait_for(client: Client, workers: int) -> None:
    while len(client.nthreads()) != workers:
        pass


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
            assert not client.get_events("skyward")
    finally:
        root.removeHandler(caplog.handler)
    assert not [r for r in caplog.records if r.name.startswith(root.name) and r.levelno >= logging.WARNING]
