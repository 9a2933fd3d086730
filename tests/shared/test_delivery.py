"""An item is somebody's, or it is in the queue: it isn't lost with who was killed or cancelled as it came."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from distributed import Client

import skyward_dask as sky
from tests.shared.cancelling import put_and_cancel


@pytest.fixture
def client(mended: Client) -> Client:
    return mended


def report_and_get(name: str) -> Any:
    """Say who waits, then wait."""
    sky.queue(f"{name}-pids").put(os.getpid())
    return sky.queue(name).get()


def wait_for_a_waiter(client: Client, name: str) -> None:
    """Look until somebody waits at the queue."""
    while not sky.collections(client)[name].waiting:
        time.sleep(0.01)


@pytest.mark.crash
def test_an_item_on_its_way_to_a_killed_slot(client: Client, executor: str, name: str) -> None:
    """It is put back, if the slot had not taken it."""
    if executor == "thread":
        pytest.skip("a thread can't be killed alone")
    q, pids = sky.queue(name), sky.queue(f"{name}-pids")
    assert q.empty()
    for item in range(8):
        future = client.submit(report_and_get, name, pure=False)
        pid = pids.get(timeout=200)
        wait_for_a_waiter(client, name)
        os.kill(pid, signal.SIGKILL)
        q.put(item)
        assert q.get(timeout=200) == item
        with pytest.raises(sky.SlotCrashed):
            future.result()
    pids.destroy()


_CLIENT = """
import sys
from distributed import Client
import skyward_dask as sky

with Client(sys.argv[1]):
    sky.queue(sys.argv[2]).get()
"""


@pytest.mark.slow
@pytest.mark.crash
def test_an_item_on_its_way_to_a_killed_client(client: Client, name: str) -> None:
    """It is put back when the scheduler knows that the client is gone."""
    q = sky.queue(name)
    assert q.empty()
    command = [sys.executable, "-c", _CLIENT, client.scheduler.address, name]
    with subprocess.Popen(command) as other:
        wait_for_a_waiter(client, name)
        other.kill()
        q.put("item")
        assert q.get(timeout=200) == "item"


@pytest.mark.slow
@pytest.mark.crash
def test_an_item_on_its_way_to_a_killed_worker(client: Client, name: str) -> None:
    """It is put back when the scheduler knows that the worker is gone."""
    q = sky.queue(name)
    assert q.empty()
    (host,) = sky.collections(client)[name].hosts
    pids = client.run(os.getpid)
    (other,) = set(pids) - {host}
    future = client.submit(lambda: sky.queue(name).get(), workers=[other], pure=False)
    wait_for_a_waiter(client, name)
    os.kill(pids[other], signal.SIGKILL)
    q.put("item")
    assert q.get(timeout=200) == "item"
    future.cancel()


def test_an_item_on_its_way_to_a_cancelled_coroutine(client: Client, name: str) -> None:
    """In a task that goes on without it."""

    got = client.submit(lambda: asyncio.run(put_and_cancel(name, 50)), pure=False).result()
    while len(got) < 50:  # or the test's time is over
        got.append(sky.queue(name).get())
    assert sorted(got) == list(range(50)) and sky.queue(name).empty()
