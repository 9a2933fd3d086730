"""Workers that can't reach each other, or the scheduler: nothing that was told is lost or old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from distributed import Client, Scheduler, Worker

import skyward_dask as sky
from tests.clusters import gen_cluster
from tests.shared.cuts import cut, silence

#: What anybody was told, also by a task: it runs in this process.
TOLD: list[int] = []


async def count(counter: Any, over: Callable[[], bool]) -> None:
    """Count, and never read less than anybody was told before."""
    while not over():
        told = max(TOLD)
        assert await counter.value_async() >= told
        TOLD.append(await counter.increment_async())


async def count_on_the_host() -> None:
    """Its worker is lost, perhaps: then nobody cares what it reads."""
    while True:
        TOLD.append(await sky.counter("c").increment_async())


async def go_on(counters: list[Any]) -> None:
    """Each of them counts on."""
    await asyncio.gather(*(count(each, iter([False, False, True]).__next__) for each in counters))


async def in_step(client: Client, without: str = "") -> str:
    """Wait for a standby of the counter, another one than this; returns its worker."""
    while not (found := (await sky.collections(client))["c"]).in_step or without in (
        *found.hosts,
        *found.standby,
    ):
        await asyncio.sleep(0.01)
    return found.standby[0]


@pytest.mark.parametrize("severed", ["standby", "scheduler", "both"])
def test_a_host_that_is_cut_off(severed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its standby, from the scheduler, which takes it for lost, or from both: its callers go on.

    The host tells nobody anything that another one may tell, too, and nobody else reads there any more.
    """

    @gen_cluster(client=True, nthreads=[])
    async def test(c: Client, s: Scheduler) -> None:
        TOLD[:] = [0]
        async with silence(s.address) as between, Worker(between.address, nthreads=1) as host:
            TOLD.append(await sky.counter("c").increment_async())
            async with (
                Worker(s.address, nthreads=1) as first,
                Worker(s.address, nthreads=1) as second,
                Client(s.address, asynchronous=True, set_as_default=False, direct_to_workers=True) as direct,
            ):
                address, over = await in_step(c), asyncio.Event()
                standby = first if address == first.address else second
                counters = [sky.counter("c", client=each) for each in (c, direct)]
                counting = [asyncio.ensure_future(count(each, over.is_set)) for each in counters]
                task = c.submit(count_on_the_host, workers=[host.address])
                while len(TOLD) < 10:
                    await asyncio.sleep(0.01)
                if severed != "scheduler":
                    cut(monkeypatch, host, standby)
                if severed != "standby":
                    between.passes.clear()
                    await s.remove_worker(host.address, stimulus_id="silent")
                await in_step(c, without=standby.address if severed == "standby" else host.address)
                await go_on(counters)
                between.passes.set()
                await s.remove_worker(host.address, stimulus_id="lost")
                await host.finished()
                await go_on(counters)
                over.set()
                await asyncio.gather(*counting)
                assert len(TOLD) == len(set(TOLD))
                # the task may not have been told of its last one
                assert await counters[0].value_async() - len(TOLD[1:]) in (0, 1)
                del task

    test()
