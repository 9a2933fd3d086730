"""2,000 no-ops through a node of 32 slots, whatever cores there are."""

from benchmarks.goals import Goal, ratio
from benchmarks.peers import DASK_THREADS, PROCESS_SLOTS, THREAD_SLOTS, clusters
from benchmarks.timing import each
from benchmarks.topics.pool_throughput import throughput

UNIT = "tasks per second"
HIGHER_IS_BETTER = True
REFERENCE = DASK_THREADS
SLOTS = 32
GOALS = [Goal("process slots, times Dask's threads", ratio(PROCESS_SLOTS, DASK_THREADS), least=1)]


def contenders(settings, enter):
    found = clusters(SLOTS)
    shown = {name: found[name] for name in (DASK_THREADS, THREAD_SLOTS, PROCESS_SLOTS)}
    return each(shown, enter, throughput)
