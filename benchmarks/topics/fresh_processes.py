"""100 no-ops, each in a fresh process, on two slots."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.goals import Goal, figure
from benchmarks.peers import (
    FORKSERVER,
    PEBBLE,
    POOL,
    PROCESS_SLOTS,
    SPAWN,
    Peer,
    executor,
    pebble,
    process_slots,
    skyward_pool,
)
from benchmarks.timing import each, seconds

UNIT = "tasks per second"
HIGHER_IS_BETTER = True
REFERENCE = FORKSERVER
GOALS = [
    Goal("the pool, per second", figure(POOL), least=50),
    Goal("process slots, per second", figure(PROCESS_SLOTS), least=50),
]
CALLS = 100


def contenders(settings, enter):
    found = {
        POOL: skyward_pool(2, max_tasks=1),
        PROCESS_SLOTS: process_slots(2, max_tasks_per_child=1),
        SPAWN: one_shot("spawn"),
        FORKSERVER: one_shot("forkserver"),
        "multiprocessing.Pool, forkserver": standard_pool(),
    }
    if find_spec("pebble"):
        found[PEBBLE] = pebble(2, max_tasks=1)
    return each(found, enter, throughput)


def one_shot(method: str):
    context = multiprocessing.get_context(method)
    return executor(partial(ProcessPoolExecutor, 2, mp_context=context, max_tasks_per_child=1))


@contextmanager
def standard_pool() -> Iterator[Peer]:
    with multiprocessing.get_context("forkserver").Pool(2, maxtasksperchild=1) as pool:

        def results(function: Callable[[Any], Any], arguments: Iterable[Any]) -> list[Any]:
            return pool.map(function, arguments, chunksize=1)

        yield Peer(pool.apply_async, results, lambda result: result.get())


def throughput(peer: Peer) -> float:
    return CALLS / seconds(lambda: peer.results(abs, range(CALLS)))
