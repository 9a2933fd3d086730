"""A collection whose host is gone says so, until it is destroyed; it is never an empty one in its place."""

from __future__ import annotations

import os
from typing import Any

import pytest
from distributed import Client, LocalCluster

import skyward_dask as sky


def end_host(client: Client, name: str) -> None:
    (host,) = sky.collections(client)[name].hosts
    client.run(os._exit, 1, workers=[host], on_error="ignore")


@pytest.mark.crash
def test_a_lost_host_is_no_empty_collection(client: Client, name: str) -> None:
    """For a client and for tasks, for those who wait and those who come."""
    sky.dict(name)["a"] = 1
    waiter = sky.queue(f"{name}-q", client=client)
    waiter.qsize()

    def use() -> Any:
        return sky.dict(name)["a"]

    assert client.submit(use, pure=False).result() == 1
    end_host(client, name)
    for _ in range(3):
        with pytest.raises(sky.CollectionLost):
            sky.dict(name)["a"]
    with pytest.raises(sky.CollectionLost, match="destroy"):
        sky.dict(name)["a"]
    with pytest.raises(sky.CollectionLost):
        client.submit(use, pure=False).result()
    assert sky.collections(client)[name].lost
    sky.dict(name).destroy()
    assert len(sky.dict(name)) == 0
    with pytest.raises(KeyError):
        client.submit(use, pure=False).result()


@pytest.mark.crash
def test_who_waits_hears_of_the_loss(client: Client, name: str) -> None:
    """Whoever waits at a host that is lost waits no longer."""
    sky.queue(name).qsize()
    (host,) = sky.collections(client)[name].hosts
    (other,) = set(client.nthreads()) - {host}
    waiter = client.submit(lambda: sky.queue(name).get(), workers=[other], pure=False)
    while not sky.collections(client)[name].waiting:
        pass
    end_host(client, name)
    with pytest.raises(sky.CollectionLost):
        waiter.result()


@pytest.mark.crash
def test_other_collections_live_on(client: Client, name: str) -> None:
    """On the worker that is left."""
    sky.counter(f"{name}-0").increment()
    sky.counter(f"{name}-1").increment()
    end_host(client, f"{name}-0")
    assert sky.counter(f"{name}-1").increment() == 2


def test_a_fence_never_comes_again(shared_client: Client, name: str) -> None:
    """Not even when the lock is made anew."""
    lock = sky.lock(name)
    lock.acquire()
    first = lock.fence
    lock.destroy()
    lock.acquire()
    assert lock.fence > first
    lock.destroy()


def test_a_restart_ends_all(name: str) -> None:
    """`client.restart()`: nothing is left."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        d = sky.dict(name)
        d["a"] = 1
        client.restart()
        assert not sky.collections(client) and not len(d)


def test_destroying_ends_waits(shared_client: Client, name: str) -> None:
    """Who waits gets an error that says so."""
    waiter = shared_client.submit(lambda: sky.queue(name).get(), pure=False)
    sky.queue(name).qsize()
    while not sky.collections(shared_client)[name].waiting:
        pass
    sky.queue(name).destroy()
    with pytest.raises(sky.CollectionLost, match="destroyed"):
        waiter.result()


def test_without_workers_there_is_no_collection(name: str) -> None:
    """A cluster without workers says what to do."""
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        Client(cluster),
        pytest.raises(sky.CollectionLost, match="start one"),
    ):
        sky.dict(name)["a"] = 1
