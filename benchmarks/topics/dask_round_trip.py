"""One no-op through Dask, from submit to result.

The median of 20 in a row, each waited for. Dask's batches (some ms at client, scheduler and worker) are most
of it.
"""

import statistics

from benchmarks.peers import DASK_THREADS, Peer, clusters
from benchmarks.timing import each, seconds

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = DASK_THREADS


def contenders(settings, enter):
    return each(clusters(settings.slots), enter, round_trip)


def round_trip(peer: Peer) -> float:
    return 1e3 * statistics.median(seconds(lambda: peer.submit(abs, -1).result()) for _ in range(20))
