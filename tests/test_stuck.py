"""Clusters whose slots' processes are worn out, stuck or orphaned: they end, and come back, in time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

import skyward_dask as sky

pytestmark = pytest.mark.crash


def spin(started: str) -> None:
    Path(started).write_text(str(os.getpid()))
    while True:
        pass


def hold_the_gil(started: str) -> None:
    Path(started).write_text(str(os.getpid()))
    pow(7, 10**9)


def hear(started: str) -> int:
    return int(Path(started).read_text())


def gone(pid: int) -> None:
    """Wait for the end of a process that isn't ours to reap."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=200)


@pytest.fixture
def client() -> Iterator[Client]:
    worker = sky.Worker(concurrency=2, executor="process", timeout="60s", max_tasks_per_child=2)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, worker)
        yield client


def test_a_process_has_so_many_tasks(client: Client) -> None:
    """Then there is another one: quietly."""
    pids = client.gather(client.map(lambda _: os.getpid(), range(20), pure=False))
    assert max(pids.count(pid) for pid in pids) <= 2
    (node,) = sky.statistics(client).workers.values()
    assert sum(slot.tasks_done for slot in node.slots) == 20
    assert not sum(slot.crashes + slot.kills for slot in node.slots)


def test_a_cluster_restarts_with_a_stuck_child(client: Client, started: str) -> None:
    """In C code that never lets go of its GIL; the workers come back with their slots."""
    future = client.submit(hold_the_gil, started)
    pid = hear(started)
    client.restart()
    gone(pid)
    assert future.status == "cancelled"
    assert list(client.nthreads().values()) == [2]
    assert client.submit(abs, -1).result() == 1


@pytest.mark.parametrize("how", ["in C code", "stopped"])
def test_a_worker_retires_with_a_stuck_child(client: Client, started: str, how: str) -> None:
    """It is gone within its time."""
    future = client.submit(spin if how == "stopped" else hold_the_gil, started)
    pid = hear(started)
    if how == "stopped":
        os.kill(pid, signal.SIGSTOP)
    client.retire_workers(list(client.nthreads()), close_workers=True)
    gone(pid)
    future.cancel()


def test_a_worker_that_is_killed_leaves_nothing(client: Client, started: str) -> None:
    """Its slots' processes go, and the nanny brings it back with its slots."""
    future = client.submit(spin, started, retries=5)
    slot = hear(started)
    (worker,) = client.run(os.getpid).values()
    again = threading.Thread(target=hear, args=(started,))
    again.start()
    os.kill(worker, signal.SIGKILL)
    gone(slot)
    again.join(timeout=200)
    assert list(client.nthreads().values()) == [2]
    future.cancel()
