"""A 256 MB array as a result.

The array is there: what is timed is its way from the task to where the result is kept. Without Dask that is
the caller, who can use it; with Dask it is the worker. The median of three in a row, after a first one; for
ours also the first one after a pause, when free shared memory has gone back to the system.
"""

import statistics
import time
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
    skyward_pool,
)
from benchmarks.timing import each, seconds
from skyward_dask.slots.memory.segments import IDLE

UNIT = "GB/s"
HIGHER_IS_BETTER = True
REFERENCE = FORKSERVER
GOALS = [
    Goal("the pool, GB/s", figure(POOL), least=4),
    Goal("process slots, GB/s", figure(PROCESS_SLOTS), least=4),
]
ELEMENTS = 1 << 25
PAUSE = 2 * IDLE


def contenders(settings, enter):
    # with one slot each: the array is kept in the process that made it
    leaving = {name: peer for name, peer in clusters(1).items() if name in (ANNOTATED, PROCESS_SLOTS, RAY)}
    elements = settings.scaled(ELEMENTS)
    pool = enter(skyward_pool(1))
    return {
        f"{POOL}, after a pause": lambda: (time.sleep(PAUSE), rate(pool, elements, (0,)))[-1],
        **each({**pools(1), **leaving}, enter, partial(rate, elements=elements, counted=(1, 2, 3))),
    }


def rate(peer: Peer, elements: int, counted: tuple[int, ...]) -> float:
    """Of so many results in a row, those that are counted."""
    taken = [seconds(lambda: peer.wait(peer.submit(kept, elements))) for _ in range(counted[-1] + 1)]
    return elements * 8 / 1e9 / statistics.median(taken[n] for n in counted)


@cache
def kept(elements: int) -> np.ndarray:
    return np.ones(elements)
