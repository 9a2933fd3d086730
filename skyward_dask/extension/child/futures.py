"""Futures that cross between a child and its worker: each side holds what it has, through its own client.

A result with futures outlives the task that made them. In a thread they are bound to the worker's client,
which wants their keys as long as the result lives; so before a child lets go of such futures, the worker's
client wants them too.
"""

from __future__ import annotations

import threading
from typing import Any

from distributed.client import futures_of

from skyward_dask.extension import private
from skyward_dask.extension.child.worker_facade import ChildWorker
from skyward_dask.slots.child.link import Link


def bind_to_a_client(worker: ChildWorker) -> None:
    """Have futures that tasks of this process use find the child's client; called once in a child."""

    def find() -> Any:
        if threading.current_thread() is threading.main_thread():
            return worker.client
        return worker.present_client  # connecting from the client's own loop would wait for itself

    private.bind_futures(find)


def lend_futures(result: Any, worker: ChildWorker, link: Link) -> bool:
    """Have the worker want the futures in a result, before this process lets go of them.

    Returns whether there are any.
    """
    client = worker.present_client
    if client is None or not client.futures:
        return False
    keys = list({future.key for future in futures_of(result)})
    if keys:
        # in the stream in which our own release will follow: the scheduler sees them in this order
        holder = link.call("hold", keys)
        private.send_to_scheduler(client, {"op": "client-desires-keys", "keys": keys, "client": holder})
    return bool(keys)
