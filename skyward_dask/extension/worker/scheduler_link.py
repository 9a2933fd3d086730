"""What a node tells its scheduler about its slots, and what it asks."""

from __future__ import annotations

from typing import Any

from distributed import Worker as DaskWorker

from skyward_dask.extension.registration import NAME, NODE, Nodes, introduce


async def slots_told(worker: DaskWorker) -> int | None:
    """How many slots this worker should have according to `resize`; None if it wasn't resized."""
    slots: int | None = await worker.scheduler.skyward_told(name=worker.name)
    return slots


async def watchers_told(worker: DaskWorker) -> Any:
    """Where clients that watch the output of tasks show it; None if none watches."""
    return await worker.scheduler.skyward_watchers()


async def report_slots(worker: DaskWorker, slots: int, is_node: bool) -> None:
    """Tell the scheduler how many slots a registered worker has, and whether they are ours."""
    await worker.scheduler.skyward_slots(worker=worker.address, slots=slots, is_node=is_node)


def introduce_node(worker: DaskWorker) -> None:
    """Have a worker that hasn't registered yet say that it is a node when it does."""
    worker.startup_information[NODE] = lambda _: True


async def nodes(worker: DaskWorker) -> Nodes:
    """The nodes of the cluster, in the order in which they joined."""
    if NAME not in worker.plugins:  # then the scheduler may not know the package yet
        await introduce(worker.scheduler)
    found: Nodes = await worker.scheduler.skyward_nodes()
    return found
