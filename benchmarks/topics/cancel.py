"""From cancelling a pure-Python loop to the next result, in one slot.

`concurrent.futures`, loky and Dask itself have no way to stop a call that runs.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.goals import Goal, figure
from benchmarks.peers import (
    PEBBLE,
    POOL,
    PROCESS_SLOTS,
    RAY,
    Peer,
    clusters,
    pools,
    process_slots,
    skyward_pool,
)
from benchmarks.tasks import spin, spin_on
from benchmarks.timing import seconds

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = PEBBLE
GRACE = 500
"""Milliseconds between the interrupt and the kill, by default."""
STUBBORN, STUBBORN_IN_DASK = f"{POOL}, ignores the interrupt", f"{PROCESS_SLOTS}, ignores the interrupt"
GOALS = [
    Goal("the pool, ms", figure(POOL), most=300),
    Goal("process slots, ms", figure(PROCESS_SLOTS), most=300),
    Goal("the pool, ignored: ms", figure(STUBBORN), most=GRACE + 200),
    Goal("process slots, ignored: ms", figure(STUBBORN_IN_DASK), most=GRACE + 200),
]


def contenders(settings, enter):
    pool, slots = enter(skyward_pool(1)), enter(process_slots(1))
    work = {
        POOL: partial(cancelled, pool, spin),
        STUBBORN: partial(cancelled, pool, spin_on),
        PROCESS_SLOTS: partial(cancelled, slots, spin),
        STUBBORN_IN_DASK: partial(cancelled, slots, spin_on),
    }
    others = {PEBBLE: pools(1).get(PEBBLE), RAY: clusters(1).get(RAY)}
    return work | {name: partial(cancelled, enter(peer), spin) for name, peer in others.items() if peer}


def cancelled(peer: Peer, loop: Callable[[str], None]) -> float:
    with TemporaryDirectory() as folder:
        running = peer.submit(loop, folder)
        while not os.listdir(folder):
            time.sleep(0.001)
        return 1e3 * seconds(lambda: (peer.stop(running), peer.submit(abs, -1).result()))
