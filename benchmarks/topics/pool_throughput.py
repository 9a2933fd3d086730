"""2,000 no-ops, without Dask."""

from benchmarks.peers import FLOOR, PEBBLE, Peer, floor, pools
from benchmarks.timing import each, seconds

UNIT = "calls per second"
HIGHER_IS_BETTER = True
REFERENCE = PEBBLE
CALLS = 2_000


def contenders(settings, enter):
    return each({**pools(settings.slots), FLOOR: floor()}, enter, throughput)


def throughput(peer: Peer) -> float:
    return CALLS / seconds(lambda: peer.results(abs, range(CALLS)))
