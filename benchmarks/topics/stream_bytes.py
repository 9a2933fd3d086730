"""Large items of a stream: arrays of 1 MiB."""

from functools import partial

from benchmarks import streams
from benchmarks.goals import Goal, figure
from benchmarks.peers import PROCESS_SLOTS
from benchmarks.timing import seconds

UNIT = "GB per second"
HIGHER_IS_BETTER = True
REFERENCE = streams.FLOOR
COUNT, ELEMENTS = 512, 1 << 17
GOALS = [Goal("process slots, GB per second", figure(PROCESS_SLOTS), least=1.0)]


def contenders(settings, enter):
    return streams.contenders(enter, partial(gigabytes, settings.scaled(COUNT)))


def gigabytes(count: int, stream: streams.Stream) -> float:
    taken = seconds(lambda: sum(1 for _ in stream(streams.arrays, count, ELEMENTS)))
    return 8 * ELEMENTS * count / taken / 1e9
