"""Increments, by eight callers, of a shared counter, each of which a standby on another worker has confirmed.

All at the same number. Tasks are on one worker; the client's callers are its threads, Redis's are processes.
"""

from functools import partial

from benchmarks.goals import Goal, figure, ratio
from benchmarks.keepers import ACTOR, REDIS_WAIT, SLOT, THREAD, Counting, cluster, rate, redis_with_replica

UNIT = "operations per second"
HIGHER_IS_BETTER = True
REFERENCE = ACTOR
GOALS = [
    Goal("thread tasks on the host's worker, operations per second", figure(THREAD), least=8_000),
    Goal("process slots there, operations per second", figure(SLOT), least=8_000),
    Goal(
        "thread tasks there, times Redis with a replica", ratio(THREAD, REDIS_WAIT), least=1, needs=REDIS_WAIT
    ),
]


def contenders(settings, enter):
    keepers = enter(cluster(replicas=1)) | enter(redis_with_replica())
    return {name: partial(_together, counting) for name, counting in keepers.items()}


def _together(counting: Counting) -> float:
    return sum(counting.run_all(rate))
