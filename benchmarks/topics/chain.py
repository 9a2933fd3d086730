"""Ten tasks `x + 1` in a row on a 256 MB array.

One task only where each hop pickles the array.
"""

from functools import partial

import numpy as np

from benchmarks.goals import Goal, ratio
from benchmarks.peers import ANNOTATED, FORKSERVER, LOKY, PEBBLE, PROCESS_SLOTS, Peer, clusters, pools
from benchmarks.timing import each, seconds

UNIT = "ms a hop"
HIGHER_IS_BETTER = False
REFERENCE = "NumPy alone"
GOALS = [Goal("process slots, times NumPy alone", ratio(PROCESS_SLOTS, REFERENCE), most=1.4)]
ELEMENTS, HOPS = 1 << 25, 10
PICKLING = (FORKSERVER, LOKY, PEBBLE, ANNOTATED)


def contenders(settings, enter):
    elements = settings.scaled(ELEMENTS)
    found = {**clusters(settings.slots), **pools(settings.slots)}
    slow = {name: found.pop(name) for name in PICKLING if name in found}
    found.pop("ProcessPoolExecutor, spawn")  # by the way of the data it is the other one
    return {
        REFERENCE: partial(in_numpy, elements),
        **each(found, enter, partial(chain, elements=elements, hops=HOPS)),
        **each(slow, enter, partial(chain, elements=elements, hops=1)),
    }


def in_numpy(elements: int) -> float:
    def hops(x: np.ndarray) -> None:
        for _ in range(HOPS):
            x = add_one(x)

    x = np.ones(elements)
    return 1e3 * seconds(lambda: hops(x)) / HOPS


def chain(peer: Peer, elements: int, hops: int) -> float:
    first = peer.submit(np.ones, elements)
    peer.wait(first)

    def run(x: object) -> None:
        for _ in range(hops):
            x = peer.submit(add_one, x)
        peer.wait(x)

    return 1e3 * seconds(lambda: run(first)) / hops


def add_one(x: np.ndarray) -> np.ndarray:
    return x + 1
