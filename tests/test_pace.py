"""Messages between a scheduler and a node leave sooner than Dask's, and only as long as there are slots."""

from __future__ import annotations

from distributed import Client, Scheduler, Worker

import skyward_dask as sky
from skyward_dask.extension.batching import INTERVAL, INTERVAL_PER_SLOT
from tests.clusters import gen_cluster


def intervals(s: Scheduler, a: Worker) -> tuple[float, float]:
    return s.stream_comms[a.address].interval, a.batched_stream.interval


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_streams_are_prompt_while_there_are_slots(c: Client, s: Scheduler, a: Worker) -> None:
    """Then they are Dask's again, however often slots were installed."""
    own = intervals(s, a)
    assert min(own) > INTERVAL
    for slots in (1, 2):
        await sky.install(c, sky.Worker(concurrency=slots, executor="thread"))
        assert intervals(s, a) == (INTERVAL, slots * INTERVAL_PER_SLOT)
    await sky.uninstall(c)
    assert intervals(s, a) == own


@gen_cluster(client=True, nthreads=[("127.0.0.1", 1)])
async def test_a_node_of_many_slots_reports_in_larger_batches(c: Client, s: Scheduler, a: Worker) -> None:
    """They cost less, and it has other tasks meanwhile."""
    _, own = intervals(s, a)
    await sky.install(c, sky.Worker(concurrency=2, executor="thread"))
    await sky.resize(c, 64)
    assert intervals(s, a) == (INTERVAL, own)
    await sky.resize(c, 2)
    assert intervals(s, a) == (INTERVAL, 2 * INTERVAL_PER_SLOT)


@gen_cluster(nthreads=[("", 1)], worker_kwargs={"plugins": [sky.SkywardPlugin(sky.Worker(concurrency=2))]})
async def test_they_are_from_the_first_task_on(s: Scheduler, a: Worker) -> None:
    """A worker that joins with slots of its own says so when it registers."""
    assert intervals(s, a) == (INTERVAL, INTERVAL)
