"""Small items of a stream: integers."""

from functools import partial

from benchmarks import streams
from benchmarks.goals import Goal, figure
from benchmarks.peers import PROCESS_SLOTS
from benchmarks.timing import seconds

UNIT = "items per second"
HIGHER_IS_BETTER = True
REFERENCE = streams.FLOOR
COUNT = 50_000
GOALS = [Goal("process slots, items per second", figure(PROCESS_SLOTS), least=50_000)]


def contenders(settings, enter):
    return streams.contenders(enter, partial(items, settings.scaled(COUNT)))


def items(count: int, stream: streams.Stream) -> float:
    return count / seconds(lambda: sum(1 for _ in stream(streams.numbers, count)))
