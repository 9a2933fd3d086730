"""What Dask does with more than one worker, over TLS, with process slots."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from distributed import (
    Client,
    Event,
    LocalCluster,
    get_client,
    performance_report,
    secede,
    wait,
    worker_client,
)

import skyward_dask as sky

#: Seconds that a test waits for something that takes well under one; generous for a loaded machine.
PATIENCE = 200


@pytest.fixture(scope="module")
def shared_client() -> Iterator[Client]:
    """Under nannies, with two slots each; their keys are in memory alone."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, security=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor="process"))
        yield client


@pytest.fixture
def one_slot(shared_client: Client) -> Iterator[str]:
    """The address of a worker that has one slot."""
    address = next(iter(shared_client.nthreads()))
    sky.resize(shared_client, 1, workers=[address])
    yield address
    sky.resize(shared_client, 2)


def increment(x: int) -> int:
    return x + 1


def test_a_task_submits_over_tls(shared_client: Client) -> None:
    """Its client has its worker's security; no secret stands where others can read it."""

    def outer() -> tuple[int, str, str]:
        words = [psutil.Process(), psutil.Process().parent()]
        readable = "".join(f"{process.cmdline()}{process.environ()}" for process in words)
        with worker_client() as client:
            return client.submit(increment, 1, pure=False).result(), client.scheduler.address, readable

    assert shared_client.scheduler.address.startswith("tls://")
    result, address, readable = shared_client.submit(outer, pure=False).result(timeout=PATIENCE)
    assert (result, address) == (2, shared_client.scheduler.address)
    assert "PRIVATE" not in readable and "BEGIN" not in readable


@pytest.mark.parametrize("way", ["worker_client", "secede", "compute"])
def test_three_levels_deep_in_one_slot(shared_client: Client, one_slot: str, way: str) -> None:
    """Who waits for another task gives its slot away."""

    def down(level: int) -> int:
        if not level:
            return 0
        if way == "worker_client":
            with worker_client() as client:
                return 1 + int(client.submit(down, level - 1, pure=False, workers=one_slot).result())
        if way == "compute":
            with dask.annotate(workers=[one_slot]):
                return 1 + int(dask.delayed(down, pure=False)(level - 1).compute(optimize_graph=False))
        future = get_client().submit(down, level - 1, pure=False, workers=one_slot)
        secede()
        return 1 + int(future.result())

    future = shared_client.submit(down, 3, pure=False, workers=one_slot)
    assert future.result(timeout=PATIENCE) == 3


def test_idle_workers_steal(shared_client: Client) -> None:
    """What waits for the slots of one worker goes to those of another."""
    first, second = shared_client.nthreads()

    def work(n: int) -> int:
        time.sleep(0.1)  # what Dask weighs against a transfer
        return n

    holders: Counter[str] = Counter()
    while not (holders[first] and holders[second]):  # or the test's time is over
        futures = shared_client.map(work, range(40), workers=first, allow_other_workers=True, pure=False)
        assert shared_client.gather(futures) == list(range(40))
        holders.update(next(iter(workers)) for workers in shared_client.who_has(futures).values())


def test_rebalance_and_replicate(shared_client: Client) -> None:
    """Values that slots have made move and multiply."""
    first, second = shared_client.nthreads()
    futures = shared_client.map(lambda n: np.full(100_000, n), range(8), workers=first, pure=False)
    wait(futures, timeout=PATIENCE)
    with dask.config.set({"distributed.worker.memory.rebalance.measure": "managed"}):
        shared_client.replicate(futures[:2], n=2)
        shared_client.rebalance(futures)
    assert {len(workers) for workers in shared_client.who_has(futures[:2]).values()} == {2}
    total = shared_client.submit(lambda arrays: sum(int(a[0]) for a in arrays), futures, workers=second)
    assert total.result(timeout=PATIENCE) == sum(range(8))


def test_overlapping_and_persisted_arrays(shared_client: Client) -> None:
    """Blocks go to their neighbours, on either worker."""
    x = da.arange(1000, chunks=100)
    with dask.config.set(scheduler=shared_client):
        y = da.map_overlap(lambda a: a[:-2] + a[2:], x, depth=1, boundary="none", trim=False, dtype=x.dtype)
        assert int(y.persist().sum().compute()) == int((x[:-2] + x[2:]).sum().compute())


def test_a_performance_report(shared_client: Client, tmp_path: Path) -> None:
    """The task's function is in it."""

    def seen_in_a_report() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass

    def profiled() -> Any:
        return shared_client.profile(key="seen_in_a_report")["count"]

    with performance_report(tmp_path / "report.html"):
        while not profiled():  # Dask shows nothing before its first cycle is over
            shared_client.submit(seen_in_a_report, pure=False).result(timeout=PATIENCE)
    assert "seen_in_a_report" in (tmp_path / "report.html").read_text()


def test_numbers_of_fresh_processes(shared_client: Client) -> None:
    """A process for each task: their numbers differ, their hashes don't, on all workers."""
    fresh = sky.Worker(concurrency=2, executor="process", max_tasks_per_child=1, pre_import=("numpy.random",))
    sky.install(shared_client, fresh)
    try:

        def facts(n: int) -> tuple[float, int]:
            return float(np.random.rand()), hash("a")

        found = shared_client.gather(shared_client.map(facts, range(100), pure=False))
        assert len({number for number, _ in found}) == 100
        assert {value for _, value in found} == set(shared_client.run(hash, "a").values())
    finally:
        sky.install(shared_client, sky.Worker(concurrency=2, executor="process"))


def test_coordination_over_tls(shared_client: Client) -> None:
    """Tasks of both workers meet."""

    def meet(me: int) -> bool:
        Event(f"met-{me}").set()
        return bool(Event(f"met-{1 - me}").wait(timeout=PATIENCE))

    workers = list(shared_client.nthreads())
    futures = [shared_client.submit(meet, n, workers=workers[n], pure=False) for n in range(2)]
    assert shared_client.gather(futures) == [True, True]


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def doubled(source: Iterator[int]) -> Iterator[int]:
    for n in source:
        yield 2 * n


def test_streams_over_tls(shared_client: Client) -> None:
    """From client to worker to worker to client, with everybody's credentials."""
    one, other = shared_client.nthreads()
    fed = shared_client.submit(doubled, sky.feed(range(100), client=shared_client), workers=[one], pure=False)
    stream = shared_client.submit(doubled, fed, workers=[other], pure=False).result(PATIENCE)
    assert list(stream) == [4 * n for n in range(100)]
