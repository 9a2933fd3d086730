"""One increment of a shared counter.

The median of 200 in a row. Redis and the manager are asked from a process that does nothing else.
"""

from functools import partial

from benchmarks.goals import Goal, figure, ratio
from benchmarks.keepers import ACTOR, CLIENT, ELSEWHERE, SLOT, THREAD, all_keepers, milliseconds

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = ACTOR
GOALS = [
    Goal("thread task on the host's worker, ms", figure(THREAD), most=0.2),
    Goal("process slot there, ms", figure(SLOT), most=0.3),
    Goal("another worker, ms", figure(ELSEWHERE), most=1.0),
    Goal("client, ms", figure(CLIENT), most=1.5),
    Goal("a plain Dask actor's time, times ours", ratio(ACTOR, THREAD), least=6),
]


def contenders(settings, enter):
    keepers = enter(all_keepers())
    return {name: partial(counting.run, milliseconds) for name, counting in keepers.items()}
