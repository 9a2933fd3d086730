"""Where a task runs: which of the cluster's nodes and slots, and who the others are."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import accumulate

from distributed import get_worker
from distributed.utils import sync

from skyward_dask.errors import OperatorError
from skyward_dask.extension.child.task import instance_of_this_process, worker_of_this_process
from skyward_dask.extension.private import task_of_thread
from skyward_dask.extension.registration import Nodes
from skyward_dask.extension.task_run import current
from skyward_dask.extension.worker.counts import Counts
from skyward_dask.extension.worker.scheduler_link import nodes


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """Where a task runs, as `instance_info` returns it: a snapshot, as nodes may join and leave.

    Attributes
    ----------
    node : int
        The number of this node, from 0 on, in the order in which nodes joined.
    total_nodes : int
    slot : int or None
        The number of this slot in its node. None where a task has no slot: in a coroutine, or once it has
        seceded.
    concurrency : int
        The slots of this node.
    index : int or None
        The number of this slot among those of all nodes: the rank.
    total : int
        The slots of all nodes: the world size.
    host : str
        The host of this node, as the cluster knows it.
    peers : tuple of str
        The hosts of all nodes, in their order.
    """

    node: int
    total_nodes: int
    slot: int | None
    concurrency: int
    index: int | None
    total: int
    host: str
    peers: tuple[str, ...]

    @property
    def is_head(self) -> bool:
        """Whether this is node 0."""
        return self.node == 0

    @property
    def head_host(self) -> str:
        """The host of node 0, for addresses such as ``MASTER_ADDR``."""
        return self.peers[0]


def instance_info() -> InstanceInfo | None:
    """Where the calling task runs: its node and slot, and the hosts of the others.

    Returns
    -------
    InstanceInfo or None
        None outside a task.

    Raises
    ------
    OperatorError
        It is called on a worker's event loop, as in an ``async def`` task, where it must not wait: write
        ``await asyncio.to_thread(instance_info)``.

    Examples
    --------
    >>> def train(data):  # doctest: +SKIP
    ...     info = instance_info()
    ...     torch.distributed.init_process_group(
    ...         "gloo", f"tcp://{info.head_host}:29500", rank=info.index, world_size=info.total
    ...     )
    """
    if (child := worker_of_this_process()) is not None:
        instance = instance_of_this_process()
        return None if instance is None else _info(child.address, *instance)
    try:
        worker = get_worker()
    except ValueError:
        return None
    run = current.get()
    if run is None and getattr(task_of_thread, "key", None) is None:
        return None
    if threading.get_ident() == worker.thread_id:
        raise OperatorError(
            "instance_info asks the scheduler, and a worker's event loop must not wait: write "
            "`await asyncio.to_thread(skyward_dask.instance_info)`."
        )
    found = sync(worker.loop, nodes, worker)  # first: the loop learns of a secede in its turn
    slot = None if run is None else Counts.of(worker).threads.index_of(run.key)
    return _info(worker.address, slot, found)


def _info(address: str, slot: int | None, found: Nodes) -> InstanceInfo:
    addresses, hosts, slots = zip(*found, strict=True)
    node, begins = addresses.index(address), [0, *accumulate(slots)]
    index = None if slot is None else begins[node] + slot
    return InstanceInfo(node, len(addresses), slot, slots[node], index, begins[-1], hosts[node], tuple(hosts))
