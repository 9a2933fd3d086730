"""One no-op, there and back, without Dask.

The median of 200 in a row, each waited for.
"""

import statistics

from benchmarks.goals import Goal, ratio
from benchmarks.peers import FLOOR, POOL, Peer, floor, pools
from benchmarks.timing import each, seconds

UNIT = "µs"
HIGHER_IS_BETTER = False
REFERENCE = FLOOR
GOALS = [Goal("the pool's round trip, times the floor", ratio(POOL, FLOOR), most=2)]


def contenders(settings, enter):
    return each({FLOOR: floor(), **pools(settings.slots)}, enter, round_trip)


def round_trip(peer: Peer) -> float:
    return 1e6 * statistics.median(seconds(lambda: peer.submit(abs, -1).result()) for _ in range(200))
