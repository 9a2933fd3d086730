"""2,000 no-ops, without Dask."""

from benchmarks.goals import Goal, ratio
from benchmarks.peers import FLOOR, PEBBLE, POOL, Peer, floor, pools
from benchmarks.timing import each, seconds

UNIT = "calls per second"
HIGHER_IS_BETTER = True
REFERENCE = PEBBLE
GOALS = [Goal("the pool's throughput, times pebble's", ratio(POOL, PEBBLE), least=1)]
CALLS = 2_000


def contenders(settings, enter):
    return each({**pools(settings.slots), FLOOR: floor()}, enter, throughput)


def throughput(peer: Peer) -> float:
    return CALLS / seconds(lambda: peer.results(abs, range(CALLS)))
