"""Lag of a worker's event loop while 32 slots have tasks of 10 ms, 99th percentile.

Dask has 32 workers of one thread; its figure is that of the worker that lags most.
"""

import time
from functools import partial

from benchmarks.goals import Goal, ratio
from benchmarks.peers import DASK_PROCESSES, DASK_THREADS, PROCESS_SLOTS, Peer, clusters
from benchmarks.topics.loop_lag import LASTING, kept_busy, lag
from benchmarks.topics.many_slots import SLOTS

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = DASK_PROCESSES
GOALS = [Goal("process slots, times Dask's worker per slot", ratio(PROCESS_SLOTS, DASK_PROCESSES), most=2)]
TASK = 0.01


def contenders(settings, enter):
    found = clusters(SLOTS)
    names = (DASK_THREADS, DASK_PROCESSES, PROCESS_SLOTS)
    return {name: partial(lag_while_busy, enter(found[name]), settings) for name in names}


def lag_while_busy(peer: Peer, settings) -> float:
    with kept_busy(peer, partial(time.sleep, TASK), SLOTS):
        return lag(peer, LASTING * settings.seconds)
