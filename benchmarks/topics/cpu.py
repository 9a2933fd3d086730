"""CPU-bound pure-Python work.

Every contender is given the same calls, two for each slot. The figure is the work done in a second of wall
time, from the first submission to the last result.
"""

import time
from functools import partial

from benchmarks.goals import Goal, ratio
from benchmarks.peers import DASK_THREADS, PROCESS_SLOTS, Peer, clusters
from benchmarks.tasks import burn
from benchmarks.timing import each, seconds

UNIT = "million iterations per second"
HIGHER_IS_BETTER = True
REFERENCE = DASK_THREADS
ALONE = "one call after the other"
GOALS = [Goal("process slots, times one after the other", ratio(PROCESS_SLOTS, ALONE), least=1.95)]

CALLS_PER_SLOT = 2
"""More than one, so that handing a slot its next task counts too; few, so that a repeat stays short."""


def contenders(settings, enter):
    calls = [iterations_in(settings.seconds)] * (settings.slots * CALLS_PER_SLOT)
    through = each(clusters(settings.slots), enter, partial(on, calls=calls))
    return {ALONE: lambda: rate(calls, lambda: [burn(call) for call in calls]), **through}


def iterations_in(wanted: float) -> int:
    """How many iterations take about so many seconds here; the contenders share the answer."""
    sample = 500_000  # some tens of milliseconds: longer than the timer's and the scheduler's grain
    started = time.perf_counter()
    burn(sample)
    return int(sample * wanted / (time.perf_counter() - started))


def on(peer: Peer, calls: list[int]) -> float:
    return rate(calls, lambda: peer.results(burn, calls))


def rate(calls: list[int], work) -> float:
    """Million iterations in a second of wall time."""
    return sum(calls) / seconds(work) / 1e6
