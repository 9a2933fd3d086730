"""Streams whose producer's worker is lost, restarted or retired."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, get_worker

import skyward_dask as sky
from tests.streams.places import PATIENCE, note, notes, two_workers, until

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def shared_client() -> Iterator[Client]:
    """Two workers with a process slot each, for tests that lose one."""
    with two_workers(sky.Worker(concurrency=1, executor="process")) as client:
        yield client


def where() -> Iterator[Any]:
    yield get_worker().address
    yield from range(1000)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_worker_that_is_lost(shared_client: Client, executor: str) -> None:
    """An error at the reader; the key is computed again, and runs nothing by itself."""
    client = shared_client
    client.wait_for_workers(2)
    with sky.options(executor=executor):
        future = client.submit(where, pure=False)
    stream = future.result(PATIENCE)
    os.kill(client.run(os.getpid)[next(stream)], 9)
    with pytest.raises(sky.StreamBroken):
        list(stream)
    until(lambda: future.status == "finished" and client.who_has([future]).get(future.key, ()) != ())

    def again() -> bool:
        try:
            return sum(1 for _ in future.result(PATIENCE)) == 1001
        except sky.StreamBroken:  # the scheduler hasn't learnt of the loss yet
            return False

    until(again)


def connect_for(client: Client, timeout: str) -> None:
    """Have the cluster's processes try so long to connect; the scheduler is in this one."""

    def here() -> None:
        dask.config.set({"distributed.comm.timeouts.connect": timeout})

    here()
    client.run(here)


def test_a_reader_that_comes_when_the_worker_has_gone(shared_client: Client) -> None:
    """It is told at once, though Dask tries to connect for much longer."""
    client = shared_client
    client.wait_for_workers(2)
    host, _ = client.nthreads()
    futures = [client.submit(where, pure=False, workers=[host], allow_other_workers=True) for _ in range(3)]
    streams = client.gather(futures)
    os.kill(client.run(os.getpid)[host], 9)
    until(lambda: host not in client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.workers)))
    connect_for(client, f"{10 * PATIENCE}s")
    with ThreadPoolExecutor(1) as threads:
        errors = [threads.submit(next, streams[0]).exception(PATIENCE)]
    for executor, stream in zip(("thread", "process"), streams[1:], strict=True):
        with sky.options(executor=executor):
            errors.append(client.submit(next, stream, pure=False).exception(PATIENCE))
    connect_for(client, "30s")
    assert list(map(type, errors)) == [sky.StreamBroken] * 3


def restart_worker(client: Client, address: str) -> None:
    client.restart_workers([address], timeout=PATIENCE)


def restart(client: Client, address: str) -> None:
    client.restart(timeout=PATIENCE)


def retire(client: Client, address: str) -> None:
    client.retire_workers([address])


@pytest.mark.parametrize("leave", [restart_worker, restart, retire])
def test_a_worker_that_leaves(
    shared_client: Client, leave: Callable[[Client, str], None], tmp_path: Path
) -> None:
    """Its readers, at the client and in a task, get what was under way, then an error; they never hang."""
    client, path = shared_client, str(tmp_path / "notes")
    client.wait_for_workers(2)
    stream = client.submit(where, pure=False).result(PATIENCE)
    address = next(stream)
    [other] = set(client.nthreads()) - {address}
    source = client.submit(where, pure=False, workers=[address], allow_other_workers=True)
    reader = client.submit(reads_slowly, source, path, pure=False, workers=[other], allow_other_workers=True)
    until(lambda: notes(path) == ["reading"])
    leave(client, address)
    with pytest.raises(sky.StreamBroken):
        list(stream)
    if leave is not restart:
        assert reader.result(PATIENCE) == "StreamBroken"


def reads_slowly(source: Iterator[Any], path: str) -> str:
    next(source)
    note(path, "reading")
    try:
        for _ in source:
            time.sleep(0.01)
    except sky.SkywardError as error:
        return type(error).__name__
    return "it has ended"
