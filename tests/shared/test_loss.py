"""A collection that has lost all its copies says so, until it is destroyed; it is never an empty one."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

import skyward_dask as sky
from tests.shared.conftest import two_workers


@pytest.fixture
def client(mended: Client) -> Client:
    return mended


def end_host(client: Client, name: str) -> None:
    (host,) = sky.collections(client)[name].hosts
    client.run(os._exit, 1, workers=[host], on_error="ignore")


@pytest.mark.crash
def test_a_lost_host_is_no_empty_collection(client: Client, name: str) -> None:
    """For a client and for tasks, for those who wait and those who come."""
    sky.dict(name, replicas=0)["a"] = 1
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
    for other in (sky.dict(name, shards=2), sky.set(name)):  # whatever it is opened with
        with pytest.raises(sky.CollectionLost):
            len(other)
    sky.dict(name).destroy()
    assert len(sky.dict(name)) == 0
    with pytest.raises(KeyError):
        client.submit(use, pure=False).result()


@pytest.mark.crash
def test_who_waits_hears_of_the_loss(client: Client, name: str) -> None:
    """Whoever waits at a host that is lost waits no longer."""
    sky.queue(name, replicas=0).qsize()
    (host,) = sky.collections(client)[name].hosts
    (other,) = set(client.nthreads()) - {host}
    waiter = client.submit(lambda: sky.queue(name).get(), workers=[other], pure=False)
    while not sky.collections(client)[name].waiting:
        time.sleep(0.01)
    end_host(client, name)
    with pytest.raises(sky.CollectionLost):
        waiter.result()


@pytest.mark.crash
def test_other_collections_live_on(executor: str, name: str) -> None:
    """On the worker that is left."""
    with two_workers(executor) as client:  # where no worker is younger than the other, each gets one
        sky.counter(f"{name}-0", replicas=0).increment()
        sky.counter(f"{name}-1", replicas=0).increment()
        end_host(client, f"{name}-0")
        assert sky.counter(f"{name}-1").increment() == 2


def test_a_fence_never_comes_again(client: Client, name: str) -> None:
    """Not even when the lock is made anew."""
    lock = sky.lock(name)
    lock.acquire()
    first = lock.fence
    lock.destroy()
    lock.acquire()
    assert lock.fence > first
    lock.destroy()


def test_a_restart_ends_all(name: str) -> None:
    """`client.restart()`: the first operation finds a new, empty collection, even if it comes meanwhile."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        d, restarted = sky.dict(name), threading.Event()

        def look() -> set[int]:
            found = {len(d)}
            while not restarted.is_set():
                found.add(len(d))
            return found

        for _ in range(2):
            d["a"] = 1
            restarted.clear()
            looking = threads.submit(look)
            client.restart()
            assert not len(d) and not sky.collections(client)[name].lost
            restarted.set()
            assert looking.result() <= {0, 1}


def test_destroying_ends_waits(client: Client, name: str) -> None:
    """Who waits gets an error that says so."""
    waiter = client.submit(lambda: sky.queue(name).get(), pure=False)
    sky.queue(name).qsize()
    while not sky.collections(client)[name].waiting:
        time.sleep(0.01)
    sky.queue(name).destroy()
    with pytest.raises(sky.CollectionLost, match="destroyed"):
        waiter.result()


def test_a_new_collection_waits_for_a_worker(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a stated time, and then says what is missing: nothing was lost."""
    monkeypatch.setattr("skyward_dask.extension.collections.switchboard._LATE", 0.1)
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster, Client(cluster):
        with pytest.raises(queue.Empty):
            sky.queue(name).get(timeout=0.01)  # a time-out that is given counts
        with dask.config.set({"skyward.collections.worker-timeout": 0.01}):
            with pytest.raises(sky.NoWorkers, match="start one") as caught:
                sky.dict(name)["a"] = 1
            assert not isinstance(caught.value, sky.CollectionLost)
        with ThreadPoolExecutor(9) as threads:
            numbers = [threads.submit(sky.counter(f"{name}-c").increment) for _ in range(9)]
            cluster.scale(1)
            assert sorted(number.result() for number in numbers) == list(range(1, 10))


_BARE_WORKER = """
import sys

sys.modules["skyward_dask"] = None  # as if it were not installed
from distributed.cli.dask_worker import main

main()
"""


@pytest.fixture
def bare_cluster() -> Iterator[LocalCluster]:
    """A cluster whose only worker can't import the package."""
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster, Client(cluster) as client:
        command = [
            sys.executable,
            "-c",
            _BARE_WORKER,
            cluster.scheduler_address,
            "--no-nanny",
            "--no-dashboard",
        ]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
            client.wait_for_workers(1)
            yield cluster
            worker.terminate()


def test_a_worker_without_the_package_is_left_out(bare_cluster: LocalCluster, name: str) -> None:
    """If there is no other, the error names it with its reason."""
    (bare,) = bare_cluster.scheduler.workers
    with pytest.raises(sky.NoWorkers, match=f"{bare}.*skyward_dask"):
        sky.counter(name).increment()
    bare_cluster.scale(1)
    Client.current().wait_for_workers(2)
    assert sky.dict(name, shards=5) == {} and sky.counter(f"{name}-c").increment() == 1
    found = sky.collections(Client.current())
    assert bare not in found[name].hosts + found[f"{name}-c"].hosts and len(found) == 2
