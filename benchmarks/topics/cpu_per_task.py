"""CPU time of the workers, with all that they have started, for each of 2,000 no-ops.

It is steadier than a throughput, in which the scheduler and the client on the same cores have a part; and it
is what bounds a node of many slots.
"""

import os
from functools import partial

import psutil

from benchmarks.goals import Goal, ratio
from benchmarks.peers import DASK_PROCESSES, DASK_THREADS, PROCESS_SLOTS, THREAD_SLOTS, Peer, clusters

UNIT = "ms"
HIGHER_IS_BETTER = False
REFERENCE = DASK_THREADS
CALLS = 2000
WORKER_ALONE = f"{PROCESS_SLOTS}, the worker alone"
GOALS = [
    Goal("process slots, times Dask's threads", ratio(PROCESS_SLOTS, DASK_THREADS), most=1.25),
    Goal("process slots, times Dask's worker per core", ratio(PROCESS_SLOTS, DASK_PROCESSES), most=0.95),
    Goal("the worker alone, times Dask's threads", ratio(WORKER_ALONE, DASK_THREADS), most=1.1),
]


def contenders(settings, enter):
    found = clusters(settings.slots)
    names = (DASK_THREADS, DASK_PROCESSES, THREAD_SLOTS, PROCESS_SLOTS)
    peers = {name: enter(found[name]) for name in names}
    work = {name: partial(cpu_per_task, peer) for name, peer in peers.items()}
    return work | {WORKER_ALONE: partial(cpu_per_task, peers[PROCESS_SLOTS], with_children=False)}


def cpu_per_task(peer: Peer, with_children: bool = True) -> float:
    workers = list(peer.client.run(os.getpid).values())
    before = cpu(workers, with_children)
    peer.results(abs, range(CALLS))
    return 1e3 * (cpu(workers, with_children) - before) / CALLS


def cpu(pids: list[int], with_children: bool) -> float:
    """CPU seconds of processes, and of those under them."""
    processes = [psutil.Process(pid) for pid in pids]
    if with_children:
        processes += [child for process in processes for child in process.children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)
