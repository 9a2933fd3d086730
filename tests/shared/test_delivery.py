"""An item is somebody's, or it is in the queue: it isn't lost with who was killed or cancelled as it came."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

import pytest
from distributed import Client

import skyward_dask as sky


def report_and_get(name: str) -> Any:
    """Say who waits, then wait."""
    sky.queue(f"{name}-pids").put(os.getpid())
    return sky.queue(name).get()


@pytest.mark.crash
def test_an_item_on_its_way_to_a_killed_slot(shared_client: Client, executor: str, name: str) -> None:
    """It is put back, if the slot had not taken it."""
    if executor == "thread":
        pytest.skip("a thread can't be killed alone")
    q, pids = sky.queue(name), sky.queue(f"{name}-pids")
    assert q.empty()
    for item in range(15):
        future = shared_client.submit(report_and_get, name, pure=False)
        pid = pids.get(timeout=30)
        while not sky.collections(shared_client)[name].waiting:
            pass
        os.kill(pid, signal.SIGKILL)
        q.put(item)
        assert q.get(timeout=10) == item
        with pytest.raises(sky.SlotCrashed):
            future.result()
    pids.destroy()


def test_an_item_on_its_way_to_a_cancelled_coroutine(shared_client: Client, name: str) -> None:
    """In a task that goes on without it."""

    async def give_up() -> list[int]:
        q, got = sky.queue(name), []
        for number in range(50):
            getting = asyncio.ensure_future(q.get_async())
            putting = asyncio.ensure_future(q.put_async(number))
            if number % 3:
                await putting
            getting.cancel()
            with suppress(asyncio.CancelledError):
                got.append(await getting)
            await putting
        return got

    got = shared_client.submit(lambda: asyncio.run(give_up()), pure=False).result()
    while not sky.queue(name).empty():
        got.append(sky.queue(name).get_nowait())
    assert sorted(got) == list(range(50))
