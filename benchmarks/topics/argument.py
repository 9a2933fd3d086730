"""A task whose argument is already on its worker.

The time of a task that looks at one element, waited for; the median of five. Beside our own task with a tiny
argument: what is beyond that is the way of the data.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.goals import Goal, difference
from benchmarks.peers import DASK_PROCESSES, DASK_THREADS, PROCESS_SLOTS, RAY, Peer, clusters
from benchmarks.timing import seconds

UNIT = "ms"
HIGHER_IS_BETTER = False
SIZES = {"8 B": 1, "1 KB": 1 << 7, "1 MB": 1 << 17, "32 MB": 1 << 22, "256 MB": 1 << 25, "1 GB": 1 << 27}
SMALL, ONE, LARGE = (f"{PROCESS_SLOTS}, {size}" for size in ("8 B", "1 MB", "1 GB"))
REFERENCE = SMALL
GOALS = [
    Goal("1 MB, ms beyond a small task", difference(ONE, SMALL), most=1),
    Goal("1 GB, ms beyond a small task", difference(LARGE, SMALL), most=1),
]


def contenders(settings, enter):
    found = clusters(settings.slots)
    work = {}
    for name in (PROCESS_SLOTS, DASK_THREADS, DASK_PROCESSES, RAY):
        if name in found:
            peer = enter(found[name])
            for size in SIZES if name == PROCESS_SLOTS else ("8 B", "256 MB"):
                work[f"{name}, {size}"] = with_array(peer, settings.scaled(SIZES[size]) or 1)
    return work


def with_array(peer: Peer, elements: int) -> Callable[[], float]:
    array = peer.submit(np.ones, elements)
    peer.wait(array)
    return partial(look, peer, array)


def look(peer: Peer, array: Any) -> float:
    return 1e3 * statistics.median(seconds(lambda: peer.submit(first, array).result()) for _ in range(5))


def first(array: np.ndarray) -> float:
    return float(array[0])
