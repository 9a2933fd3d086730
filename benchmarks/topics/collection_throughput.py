"""Increments of a shared counter by eight callers.

All at the same number. Tasks are on one worker; the client's callers are its threads, Redis's and the
manager's are processes.
"""

from functools import partial

from benchmarks.goals import Goal, figure
from benchmarks.keepers import ACTOR, SLOT, THREAD, Counting, all_keepers, rate

UNIT = "operations per second"
HIGHER_IS_BETTER = True
REFERENCE = ACTOR
GOALS = [
    Goal("thread tasks on the host's worker, operations per second", figure(THREAD), least=10_000),
    Goal("process slots there, operations per second", figure(SLOT), least=10_000),
]


def contenders(settings, enter):
    keepers = enter(all_keepers())
    return {name: partial(_together, counting) for name, counting in keepers.items()}


def _together(counting: Counting) -> float:
    return sum(counting.run_all(rate))
