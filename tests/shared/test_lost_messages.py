"""What the directory and hosts tell each other comes late, or its answer is lost."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from inspect import isawaitable
from itertools import count, product
from typing import Any

import pytest
from distributed import Client, Scheduler, Worker
from distributed.comm import CommClosedError

import skyward_dask as sky
from skyward_dask.shared.copying import Begin
from tests.shared.test_retiring import cluster_of_three, host_of, in_step


def losing_the_first(handle: Callable[..., Any], obeys: bool) -> Callable[..., Any]:
    """The connection breaks, before the message has come or before it is answered."""
    came = count()

    async def handle_it(**values: Any) -> Any:
        is_first = next(came) == 0
        answer = handle(**values) if obeys or not is_first else None
        answer = await answer if isawaitable(answer) else answer
        if is_first:
            raise CommClosedError("the connection broke")
        return answer

    return handle_it


def collections_of(worker: Worker) -> Any:
    return worker.plugins["skyward-collections"]


@pytest.mark.parametrize("obeys", [False, True])
def test_who_gets_no_answer_asks_again(obeys: bool) -> None:
    @cluster_of_three()
    async def test(c: Client, s: Scheduler, *workers: Worker) -> None:
        await c.submit(sky.counter("other", client=c).increment)  # now all take part
        for server, message in product((s, *workers), ("join", "part", "fill", "give_way", "lead")):
            if (handle := server.handlers.get(f"skyward_{message}")) is not None:
                server.handlers[f"skyward_{message}"] = losing_the_first(handle, obeys)
        at = {worker.address: worker for worker in workers}
        host = await host_of(c, "kept")
        standby = await asyncio.wait_for(in_step(c, "kept"), 20)
        collections_of(at[host])._links.cut(standby)
        counter = sky.counter("kept", client=c)
        assert await asyncio.wait_for(counter.increment_async(), 20) == 2
        await asyncio.wait_for(in_step(c, "kept"), 20)
        await at[host].close()
        assert await asyncio.wait_for(counter.increment_async(), 20) == 3

    test()


@cluster_of_three()
async def test_a_standby_that_is_told_to_begin_too_late_goes(
    c: Client, s: Scheduler, *workers: Worker
) -> None:
    """Meanwhile another was chosen, and Dask has dropped the actor that the standby would have been."""
    host = await host_of(c, "kept")
    standby = await in_step(c, "kept")
    at_host, at_standby = (collections_of(w) for a in (host, standby) for w in workers if w.address == a)
    await c.retire_workers([standby], close_workers=False, remove=False)
    while at_standby._standbys.nbytes():
        await asyncio.sleep(0.01)
    ((key, entry),) = at_host._homes._entries.items()
    light, _ = entry.host.home.snapshot()
    at_standby._standbys.take(key, pickle.dumps(Begin(2, 1, light)))
    assert at_standby._standbys.nbytes()
    while at_standby._standbys.nbytes():
        await asyncio.sleep(0.01)
    assert not at_standby._followers and await in_step(c, "kept") != standby


@cluster_of_three()
async def test_a_broken_connection_is_no_refusal(c: Client, s: Scheduler, *workers: Worker) -> None:
    """Workers that couldn't be invited once are invited again when a collection needs them."""
    await sky.counter("alone", client=c, replicas=0).increment_async()
    others = {*s.workers} - {*(await sky.collections(c))["alone"].hosts}
    for worker in workers:
        if worker.address in others:
            worker.handlers["plugin-add"] = losing_the_first(worker.handlers["plugin-add"], False)
    await host_of(c, "kept")
    await asyncio.wait_for(in_step(c, "kept"), 20)
