"""Futures that cross between a child and its worker: each side holds its futures through its own client.

A result with futures outlives the task that made them. In a thread slot, they are bound to the worker's
client, which wants their keys as long as the result lives. So before a child releases such futures, it has
the worker's client want them too.
"""

from __future__ import annotations

import threading
from typing import Any

from distributed.client import futures_of

from skyward_dask.extension import private_clients
from skyward_dask.extension.child.worker_facade import ChildWorker
from skyward_dask.slots.child.link import Link


def bind_to_a_client(worker: ChildWorker) -> None:
    """Have the futures that this process's tasks use find the child's client; called once in a child."""

    def find() -> Any:
        if threading.current_thread() is threading.main_thread():
            return worker.client
        return worker.present_client  # connecting from the client's own loop would wait for itself

    private_clients.bind_futures(find)


def lend_futures(result: Any, worker: ChildWorker, link: Link) -> bool:
    """Have the worker want the futures in a result, before this process releases them.

    Returns whether there are any.
    """
    client = worker.present_client
    if client is None or not client.futures:
        return False
    keys = list({future.key for future in futures_of(result)})
    if keys:
        # in the same stream as our own release, which comes later: the scheduler sees them in this order
        holder = link.call("hold", keys)
        private_clients.send_to_scheduler(
            client, {"op": "client-desires-keys", "keys": keys, "client": holder}
        )
    return bool(keys)
