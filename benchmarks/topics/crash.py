"""From a crash until both slots work again.

From the submission of the killer to the end of two tasks that wait for each other, submitted when the
killer's caller has heard of the crash. An executor of the standard library, and loky's, is broken by then:
its caller makes another.
"""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from functools import partial
from tempfile import TemporaryDirectory

import dask

from benchmarks.goals import Goal, figure
from benchmarks.peers import (
    DASK_PROCESSES,
    DASK_THREADS,
    POOL,
    PROCESS_SLOTS,
    RAY,
    Manager,
    Peer,
    clusters,
    pools,
    process_slots,
    skyward_pool,
)
from benchmarks.tasks import come, die
from benchmarks.timing import seconds

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = DASK_PROCESSES
NEXT, NEXT_IN_DASK = f"{POOL}, one slot: next result", f"{PROCESS_SLOTS}, one slot: next result"
GOALS = [
    Goal("the pool of one slot, ms to the next result", figure(NEXT), most=50),
    Goal("one process slot, ms to the next result", figure(NEXT_IN_DASK), most=50),
]


def contenders(settings, enter):
    # the first death of a worker is charged to the task that killed it, as we do
    enter(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
    lasting = clusters(2)
    work = {
        name: partial(both, enter(lasting[name])) for name in (DASK_PROCESSES, DASK_THREADS, PROCESS_SLOTS)
    }
    work[NEXT_IN_DASK] = partial(next_result, enter(process_slots(1)))
    work[NEXT] = partial(next_result, enter(skyward_pool(1)))
    if RAY in lasting:
        work[RAY] = partial(both, enter(lasting[RAY]))
    for name in pools(2):
        work[name] = partial(both_of_a_new_one, partial(lambda name: pools(2)[name], name))
    return work


def next_result(peer: Peer) -> float:
    peer.submit(abs, -1).result()
    return 1e3 * seconds(lambda: (crash(peer), peer.submit(abs, -1).result()))


def both(peer: Peer) -> float:
    workers = len(peer.client.nthreads()) if peer.client is not None else 0

    def crash_and_meet() -> None:
        crash(peer)
        if workers:  # else both tasks may be given to the worker that is left, and none is taken from it
            peer.client.wait_for_workers(workers)
        meet(peer)

    peer.results(abs, range(8))
    return 1e3 * seconds(crash_and_meet)


def both_of_a_new_one(make: Callable[[], Manager]) -> float:
    with ExitStack() as stack:
        peer = stack.enter_context(make())
        meet(peer)

        def crash_and_meet() -> None:
            crash(peer)
            try:
                meet(peer)
            except BrokenExecutor:
                meet(stack.enter_context(make()))

        return 1e3 * seconds(crash_and_meet)


def crash(peer: Peer) -> None:
    try:
        peer.submit(die).result()
    except Exception:  # each peer has an error of its own for it
        return
    raise AssertionError("the killer's process lives")


def meet(peer: Peer) -> None:
    with TemporaryDirectory() as folder:
        for future in [peer.submit(come, folder, name) for name in "ab"]:
            future.result()
