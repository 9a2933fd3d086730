"""One increment of a shared counter that a standby on another worker has confirmed.

The median of 200 in a row. A Dask actor has no second copy. Redis's WAIT says how many replicas have a write;
it doesn't promise that one of them takes over.
"""

from functools import partial

from benchmarks.goals import Goal, figure
from benchmarks.keepers import (
    ACTOR,
    CLIENT,
    ELSEWHERE,
    SLOT,
    THREAD,
    cluster,
    milliseconds,
    redis_with_replica,
)

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = ACTOR
GOALS = [
    Goal("thread task on the host's worker, ms", figure(THREAD), most=0.8),
    Goal("process slot there, ms", figure(SLOT), most=0.9),
    Goal("another worker, ms", figure(ELSEWHERE), most=1.2),
    Goal("client, ms", figure(CLIENT), most=1.7),
]


def contenders(settings, enter):
    keepers = enter(cluster(replicas=1)) | enter(redis_with_replica())
    return {name: partial(counting.run, milliseconds) for name, counting in keepers.items()}
