"""A pair of operations from a client: lock and release, put and get, set and get.

The median of 50 pairs in a row.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from statistics import median
from uuid import uuid4

from dask.distributed import Lock, Queue, Variable

import skyward_dask as sky
from benchmarks.clusters import skyward_worker

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = "Dask Queue, put and get"
_PAIRS = 50


def contenders(settings, enter):
    client = enter(skyward_worker(settings.slots, "thread"))
    name = uuid4().hex
    pairs = {
        "skyward_dask lock, acquire and release": _lock(sky.lock(f"{name}-lock")),
        "skyward_dask queue, put and get": _queue(sky.queue(f"{name}-queue")),
        "skyward_dask dict, set and get": _mapping(sky.dict(f"{name}-dict")),
        "Dask Lock, acquire and release": _lock(Lock(name)),
        REFERENCE: _queue(Queue(name, client=client)),
        "Dask Variable, set and get": _variable(Variable(name, client=client)),
    }
    if find_spec("ray"):
        pairs["Ray Queue, put and get"] = _queue(enter(_ray_queue()))
    return {name: partial(milliseconds, pair) for name, pair in pairs.items()}


@contextmanager
def _ray_queue():
    import ray
    from ray.util.queue import Queue as RayQueue

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield RayQueue()
    finally:
        ray.shutdown()


def milliseconds(pair: Callable[[], object]) -> float:
    pair()
    return 1e3 * median(_seconds(pair) for _ in range(_PAIRS))


def _seconds(pair: Callable[[], object]) -> float:
    started = time.perf_counter()
    pair()
    return time.perf_counter() - started


def _lock(lock) -> Callable[[], object]:
    return lambda: (lock.acquire(), lock.release())


def _queue(queue) -> Callable[[], object]:
    return lambda: (queue.put(1), queue.get())


def _mapping(shared) -> Callable[[], object]:
    return lambda: (shared.__setitem__("key", 1), shared["key"])


def _variable(variable) -> Callable[[], object]:
    return lambda: (variable.set(1), variable.get())
