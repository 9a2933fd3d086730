"""One no-op without Dask, from submit to result.

The median of 200 in a row, each waited for. The floor is a call that blocks, and so is `SlotPool.run`, which
is what Dask's threads use; a call that is submitted goes through a thread of its executor, there and back.
"""

import statistics

from benchmarks.peers import FLOOR, Peer, floor, pools
from benchmarks.timing import each, seconds
from skyward_dask.slots.executor import SlotPool
from skyward_dask.slots.runs import Request

UNIT = "µs"
HIGHER_IS_BETTER = False
REFERENCE = FLOOR
BLOCKING = "skyward_dask, the pool alone, a call that blocks"
ROUNDS = 200


def contenders(settings, enter):
    pool = enter(SlotPool(settings.slots))
    pool.wait_ready()  # see `benchmarks.peers.skyward_pool`
    return {
        BLOCKING: lambda: median(lambda: pool.run(Request("abs", abs, (-1,)))),
        **each({FLOOR: floor(), **pools(settings.slots)}, enter, round_trip),
    }


def round_trip(peer: Peer) -> float:
    return median(lambda: peer.submit(abs, -1).result())


def median(call) -> float:
    return 1e6 * statistics.median(seconds(call) for _ in range(ROUNDS))
