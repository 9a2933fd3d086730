"""A 256 MB array as a result.

The array is there: what is timed is its way from the task to where the result is kept. Without Dask that is
the caller, who can use it; with Dask it is the worker.
"""

from functools import cache, partial

import numpy as np

from benchmarks.goals import Goal, figure
from benchmarks.peers import (
    ANNOTATED,
    FORKSERVER,
    POOL,
    PROCESS_SLOTS,
    RAY,
    Peer,
    clusters,
    pools,
)
from benchmarks.timing import each, seconds

UNIT = "GB/s"
HIGHER_IS_BETTER = True
REFERENCE = FORKSERVER
GOALS = [
    Goal("the pool, GB/s", figure(POOL), least=4),
    Goal("process slots, GB/s", figure(PROCESS_SLOTS), least=4),
]
ELEMENTS = 1 << 25


def contenders(settings, enter):
    # with one slot each: the array is kept in the process that made it
    leaving = {name: peer for name, peer in clusters(1).items() if name in (ANNOTATED, PROCESS_SLOTS, RAY)}
    return each({**pools(1), **leaving}, enter, partial(rate, elements=settings.scaled(ELEMENTS)))


def rate(peer: Peer, elements: int) -> float:
    peer.wait(peer.submit(kept, elements))
    return elements * 8 / 1e9 / seconds(lambda: peer.wait(peer.submit(kept, elements)))


@cache
def kept(elements: int) -> np.ndarray:
    return np.ones(elements)
