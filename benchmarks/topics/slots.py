"""2,000 no-ops on 1 to 32 slots."""

from functools import partial

from benchmarks.clusters import dask_workers, skyward_worker
from benchmarks.peers import DASK_THREADS, POOL, PROCESS_SLOTS, cluster, skyward_pool
from benchmarks.timing import each
from benchmarks.topics.pool_throughput import throughput

UNIT = "tasks per second"
HIGHER_IS_BETTER = True
REFERENCE = f"{PROCESS_SLOTS}: 1"
COUNTS = (1, 2, 4, 8, 16, 32)
DASK_COUNTS = (1, 4, 32)


def contenders(settings, enter):
    pools = {f"{POOL}: {n}": skyward_pool(n) for n in COUNTS}
    ours = {f"{PROCESS_SLOTS}: {n}": cluster(partial(skyward_worker, n, "process"), n) for n in COUNTS}
    dask = {f"{DASK_THREADS}: {n}": cluster(partial(dask_workers, 1, n), n) for n in DASK_COUNTS}
    return each({**pools, **ours, **dask}, enter, throughput)
