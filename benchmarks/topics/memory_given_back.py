"""What a worker keeps of the memory of dropped results: many small ones.

Its size above that at its start: at the peak, and some seconds after they were dropped. Each contender has a
cluster of its own. Later rounds use again what the first has left: they show what stays for good.

What stays is Python's own. It gives small objects' memory back in pieces of 1 MiB, if nothing in one is
left: 3 to 4 kB stay for each task, as in plain Dask. What is left in each piece are a few hundred small
objects of Dask's: its last batch of messages, which its handler still refers to, its logs of the last 1,000
messages and transitions, `key_split`'s cache, and what `SystemMonitor` and the profile note every half second
or second. They can't be moved; the free memory between them is used again. Clearing all of these that can be
cleared freed 4 MB of objects, and gave not one piece back; nearly as much stayed with a lower threshold for
mmap in the C library (MALLOC_MMAP_THRESHOLD_=65536), and with PYTHONMALLOC=malloc.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import psutil
from dask.distributed import Client, wait

from benchmarks.clusters import dask_workers, skyward_worker
from benchmarks.goals import Goal, figure
from benchmarks.peers import DASK_THREADS, PROCESS_SLOTS
from benchmarks.timing import Work

UNIT = "% above its size at the start"
HIGHER_IS_BETTER = False
SETTLED = 5.0
"""Seconds after which a worker has given back what it can: it begins half a second after the last release."""
ELEMENTS = 8192
"""Of an array of 64 kB, and of a list."""


def floats(count: int) -> list[float]:
    return list(map(float, range(count)))


RESULTS = {
    "4,000 arrays": (np.ones, 4_000),
    "20,000 arrays": (np.ones, 20_000),
    "1,000 lists": (floats, 1_000),
}
REFERENCE = f"{DASK_THREADS}, 4,000 arrays"
GOALS = [Goal(f"{name}, %", figure(f"{PROCESS_SLOTS}, {name}"), most=15) for name in RESULTS]


def contenders(settings, enter) -> dict[str, Work]:
    through = {
        DASK_THREADS: partial(dask_workers, workers=1, threads=settings.slots),
        PROCESS_SLOTS: partial(skyward_worker, settings.slots, "process"),
    }
    work: dict[str, Work] = {}
    for amount, (make, count) in RESULTS.items():
        for name, cluster in through.items():
            worker = Watched(enter(cluster()), make, settings.scaled(count))
            work[f"{name}, {amount}"] = partial(worker.figure, "after")
            work[f"{name}, {amount}, at the peak"] = partial(worker.figure, "peak")
    return work


class Watched:
    """A worker that makes results and drops them."""

    def __init__(self, client: Client, make: Callable[[int], object], count: int) -> None:
        self._client, self._make, self._count = client, make, count
        client.gather(client.map(abs, range(100), pure=False))  # it has done something
        self._start = self._size()
        self._figures: dict[str, float] = {}

    def figure(self, name: str) -> float:
        """One of the two figures of a round; a new round if the last one's was asked for."""
        if name not in self._figures:
            self._figures = self._round()
        return self._figures.pop(name)

    def _round(self) -> dict[str, float]:
        results = self._client.map(self._make, [ELEMENTS] * self._count, pure=False)
        with self._client.as_current():  # otherwise, `wait` takes the latest client, whose loop is another
            wait(results)
        peak = self._beyond()
        del results
        time.sleep(SETTLED)
        return {"peak": peak, "after": self._beyond()}

    def _beyond(self) -> float:
        return 100 * (self._size() / self._start - 1)

    def _size(self) -> int:
        (found,) = self._client.run(resident).values()
        return int(found)


def resident() -> int:
    return int(psutil.Process().memory_info().rss)
