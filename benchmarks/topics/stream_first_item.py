"""From yielding a stream's first item to its arrival, while the second one takes a while."""

import time

from benchmarks import streams
from benchmarks.goals import Goal, figure
from benchmarks.peers import PROCESS_SLOTS

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = streams.FLOOR
GOALS = [Goal("process slots, ms", figure(PROCESS_SLOTS), most=5)]


def contenders(settings, enter):
    return streams.contenders(enter, first)


def first(stream: streams.Stream) -> float:
    items = stream(streams.moments)
    yielded = next(items)
    taken = time.monotonic() - yielded
    for _ in items:
        pass
    return 1e3 * taken
