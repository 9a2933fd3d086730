"""CPU-bound pure-Python work.

Every contender is given the same calls, two for each slot. The figure is the work done in a second of wall
time, from the first submission to the last result.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dask.distributed import Client

from benchmarks.clusters import dask_workers, skyward_worker

UNIT = "million iterations per second"
HIGHER_IS_BETTER = True
REFERENCE = "Dask, 1 worker, threads"

CALLS_PER_SLOT = 2
"""More than one, so that handing a slot its next task counts too; few, so that a repeat stays short."""


def contenders(settings):
    """One call after the other; Dask's two ways to use all cores; our two executors."""
    slots = settings.slots
    iterations = iterations_in(settings.seconds)
    return {
        "one call after the other": one_after_the_other(slots, iterations),
        REFERENCE: on(dask_workers(workers=1, threads=slots), slots, iterations),
        "Dask, a worker per core": on(dask_workers(workers=slots, threads=1), slots, iterations),
        "skyward_dask, thread slots": on(skyward_worker(slots, "thread"), slots, iterations),
        "skyward_dask, process slots": on(skyward_worker(slots, "process"), slots, iterations),
    }


def burn(iterations: int) -> int:
    """A tight loop that holds the interpreter's lock; the value keeps it from being optimised away."""
    value = 1
    for _ in range(iterations):
        value = (value * 1_103_515_245 + 12_345) % 2_147_483_648
    return value


def iterations_in(seconds: float) -> int:
    """How many iterations take about so long here; the contenders share the answer."""
    sample = 500_000  # some tens of milliseconds: longer than the timer's and the scheduler's grain
    started = time.perf_counter()
    burn(sample)
    return int(sample * seconds / (time.perf_counter() - started))


@contextmanager
def one_after_the_other(slots: int, iterations: int) -> Iterator[Callable[[], float]]:
    """The same calls in this process."""
    calls = [iterations] * (slots * CALLS_PER_SLOT)
    yield lambda: rate(calls, lambda: [burn(call) for call in calls])


@contextmanager
def on(cluster, slots: int, iterations: int) -> Iterator[Callable[[], float]]:
    """The same calls through a Dask client."""
    calls = [iterations] * (slots * CALLS_PER_SLOT)
    with cluster as client:
        wait_for_workers(client, slots)
        yield lambda: rate(calls, lambda: client.gather(client.map(burn, calls, pure=False)))


def wait_for_workers(client: Client, slots: int) -> None:
    """All slots are there and have imported what they need: a call that is none for each of them."""
    client.gather(client.map(burn, [0] * slots, pure=False))
    missing = slots - sum(client.nthreads().values())
    if missing:
        raise RuntimeError(f"the cluster shows {client.nthreads()}: {missing} slots are missing")


def rate(calls: list[int], work: Callable[[], object]) -> float:
    """Million iterations in a second of wall time."""
    started = time.perf_counter()
    work()
    return sum(calls) / (time.perf_counter() - started) / 1e6
