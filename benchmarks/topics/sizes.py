"""An array there and back, by size, without Dask.

The best of three: what is argument is made new by the caller each time, and the task gives back another one.
"""

from functools import partial

import numpy as np

from benchmarks.peers import FORKSERVER, POOL, Peer, pools
from benchmarks.timing import seconds

UNIT = "ms"
HIGHER_IS_BETTER = False
SIZES = {
    "1 KB": 1 << 7,
    "64 KB": 1 << 13,
    "1 MB": 1 << 17,
    "16 MB": 1 << 21,
    "256 MB": 1 << 25,
    "1 GB": 1 << 27,
}
REFERENCE = f"{POOL}: 1 MB"
MOST_PICKLED = "16 MB"


def contenders(settings, enter):
    found = pools(settings.slots)
    work = {}
    for name in (POOL, FORKSERVER):
        peer = enter(found[name])
        for size, elements in SIZES.items():
            if name == POOL or elements <= SIZES[MOST_PICKLED]:
                work[f"{name}: {size}"] = partial(there_and_back, peer, settings.scaled(elements) or 1)
    return work


def there_and_back(peer: Peer, elements: int) -> float:
    def once() -> float:
        array = np.ones(elements)
        return seconds(lambda: peer.submit(np.negative, array).result())

    return 1e3 * min(once() for _ in range(3))
