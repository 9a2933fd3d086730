"""`sky.check`: it says what is wrong, and only that."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from distributed import Client, Scheduler, Worker

import skyward_dask as sky
from tests.clusters import gen_cluster
from tests.test_install import PROCESS, block


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)] * 2)
async def test_all_is_well(c: Client, s: Scheduler, a: Worker, b: Worker) -> None:
    """A task went through each slot."""
    await sky.install(c, PROCESS)
    found = await sky.check(c)
    assert found.problems == () and str(found).endswith("all is well")
    assert found.client == found.scheduler == found.workers[a.address].versions
    assert found.client["skyward_dask"] == sky.__version__
    assert {address: worker.slots for address, worker in found.workers.items()} == {
        a.address: {0: "", 1: ""},
        b.address: {0: "", 1: ""},
    }
    assert found.workers[a.address].executor == "process"


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)] * 2)
async def test_a_worker_without_slots_is_named(c: Client, s: Scheduler, a: Worker, b: Worker) -> None:
    """With what to do about it."""
    plugin = sky.SkywardPlugin(PROCESS)
    await c.register_plugin(plugin)
    async with Worker(s.address, nthreads=1) as joined:
        await a.plugin_remove("skyward")
        while "skyward-node" in a.plugins:
            await asyncio.sleep(0.01)
        (problem,) = (await sky.check(c)).problems
        assert a.address in problem and "install" in problem and joined.address not in problem


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_a_busy_slot_is_left_alone(c: Client, s: Scheduler, a: Worker) -> None:
    """And named with its task, while the other is tried."""
    await sky.install(c, PROCESS)
    started, release = f"{a.local_directory}/started", f"{a.local_directory}/release"
    for fifo in (started, release):
        os.mkfifo(fifo)
    future = c.submit(block, started, release, key="blocking")
    await asyncio.to_thread(Path(started).read_text)
    found = await sky.check(c, timeout=2.0)
    (problem,) = found.problems
    assert "blocking" in problem and sorted(map(bool, found.workers[a.address].slots.values())) == [
        False,
        True,
    ]
    await asyncio.to_thread(Path(release).write_text, "")
    await future
    assert (await sky.check(c)).problems == ()


@gen_cluster(client=True, nthreads=[("127.0.0.1", 2)])
async def test_a_slot_that_hangs_is_named(c: Client, s: Scheduler, a: Worker) -> None:
    """Its process is stopped: it takes a task, and never answers."""
    await sky.install(c, PROCESS)
    assert (await sky.check(c)).problems == ()
    (slot, _) = (await sky.statistics(c)).workers[a.address].slots
    os.kill(slot.pid, signal.SIGSTOP)
    found = await sky.check(c, timeout=2.0)
    assert found.workers[a.address].slots[slot.index] and len(found.problems) == 1
