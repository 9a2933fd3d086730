"""2,000 no-ops, through Dask."""

from benchmarks.goals import Goal, ratio
from benchmarks.peers import DASK_PROCESSES, DASK_THREADS, PROCESS_SLOTS, clusters
from benchmarks.timing import each
from benchmarks.topics.pool_throughput import throughput

UNIT = "tasks per second"
HIGHER_IS_BETTER = True
REFERENCE = DASK_THREADS
GOALS = [
    Goal("process slots, times Dask's threads", ratio(PROCESS_SLOTS, DASK_THREADS), least=1),
    Goal("process slots, times Dask's worker per core", ratio(PROCESS_SLOTS, DASK_PROCESSES), least=1),
]


def contenders(settings, enter):
    return each(clusters(settings.slots), enter, throughput)
