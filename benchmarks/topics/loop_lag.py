"""Lag of the worker's event loop while both slots are busy, 99th percentile.

A coroutine on the loop sleeps for two milliseconds, over and over; what a sleep takes beyond that is lag.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from dask.distributed import as_completed

from benchmarks.goals import Goal, ratio
from benchmarks.peers import ANNOTATED, DASK_PROCESSES, DASK_THREADS, PROCESS_SLOTS, Peer, clusters
from benchmarks.tasks import call_in_c, dicts, loop
from benchmarks.timing import Work

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = f"{PROCESS_SLOTS}, idle"
LOADS = ("loops", "C calls", "arrays", "dicts")
GOALS = [
    Goal(f"process slots, {load}, times idle", ratio(f"{PROCESS_SLOTS}, {load}", REFERENCE), most=2.5)
    for load in LOADS
]
LASTING = 3
"""Times the length of a piece of work for which the lag is looked at: over a thousand looks."""
PAUSE = 0.002


def contenders(settings, enter):
    found = clusters(2)
    shown = {
        PROCESS_SLOTS: LOADS,
        DASK_THREADS: ("loops", "C calls"),
        DASK_PROCESSES: ("loops", "C calls"),
        ANNOTATED: ("loops", "dicts"),
    }
    work: dict[str, Work] = {}
    for name, loads in shown.items():
        peer = enter(found[name])
        work[f"{name}, idle"] = partial(lag, peer, LASTING * settings.seconds)
        work |= {f"{name}, {load}": partial(lag_under, peer, load, settings) for load in loads}
    return work


def lag_under(peer: Peer, load: str, settings) -> float:
    work = {
        "loops": partial(loop, settings.seconds / 4),
        "C calls": partial(call_in_c, settings.seconds),
        "arrays": partial(array, settings.scaled(1 << 23)),
        "dicts": partial(dicts, settings.scaled(100_000)),
    }
    with kept_busy(peer, work[load]):
        return lag(peer, LASTING * settings.seconds)


@contextmanager
def kept_busy(peer: Peer, work: Callable[[], object], slots: int = 2) -> Iterator[None]:
    """All slots have one task after the other, from when the first one is done."""
    begun, over = threading.Event(), threading.Event()

    def feed() -> None:
        running = as_completed([peer.submit(work) for _ in range(2 * slots)])
        for _ in running:
            begun.set()
            if not over.is_set():
                running.add(peer.submit(work))

    feeder = threading.Thread(target=feed)
    feeder.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        feeder.join()


def lag(peer: Peer, lasting: float) -> float:
    """Of the worker that lags most, in milliseconds."""
    return 1e3 * max(peer.client.run(worst, lasting).values())


async def worst(lasting: float) -> float:
    """The 99th percentile of the lag of the loop that this runs on, in seconds."""
    lags = []
    end = time.perf_counter() + lasting
    while (before := time.perf_counter()) < end:
        await asyncio.sleep(PAUSE)
        lags.append(time.perf_counter() - before - PAUSE)
    return statistics.quantiles(lags, n=100)[-1]


def array(elements: int) -> np.ndarray:
    return np.ones(elements)
