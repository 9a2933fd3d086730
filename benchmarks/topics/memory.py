"""Memory of an idle process (its unique pages)."""

from functools import partial

import psutil

from benchmarks.goals import Goal, figure
from benchmarks.peers import DASK_PROCESSES, POOL, PROCESS_SLOTS, RAY, Peer, clusters, pools
from benchmarks.tasks import whereabouts
from benchmarks.timing import each

UNIT = "MB a process"
HIGHER_IS_BETTER = False
REFERENCE = DASK_PROCESSES
GOALS = [
    Goal("a slot of the pool, MB", figure(POOL), most=15),
    Goal("a process slot, MB", figure(PROCESS_SLOTS), most=15),
]
SETTLED = 0.05
"""Seconds that a call takes, so that all slots have some; a process has settled a moment after it."""


def contenders(settings, enter):
    wanted = (DASK_PROCESSES, PROCESS_SLOTS, RAY)
    through = {name: peer for name, peer in clusters(settings.slots).items() if name in wanted}
    return each({**through, **pools(settings.slots)}, enter, partial(own, slots=settings.slots))


def own(peer: Peer, slots: int) -> float:
    pids = set(peer.results(whereabouts, [SETTLED] * (4 * slots)))
    return sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / len(pids) / 1e6
