"""From the SIGKILL of the worker that has a counter to the next increment that is acknowledged.

By a client. Dask's own notice of the death is in it: at once here, where the system closes the connection.
"""

import os
import signal
import time

import skyward_dask as sky
from benchmarks.clusters import dask_workers
from benchmarks.goals import Goal, figure

UNIT = "ms"
HIGHER_IS_BETTER = False
OURS = "skyward_dask, client"
REFERENCE = OURS
GOALS = [Goal("the next acknowledged write, ms", figure(OURS), most=1000)]


def contenders(settings, enter):
    client = enter(dask_workers(workers=3, threads=1))
    counter = sky.counter("count", client=client)
    counter.increment()
    return {OURS: lambda: _milliseconds(client, counter)}


def _milliseconds(client, counter) -> float:
    client.wait_for_workers(3)
    while not (found := sky.collections(client)["count"]).in_step:
        time.sleep(0.01)
    pids = client.run(os.getpid)
    counted = counter.increment()
    started = time.perf_counter()
    os.kill(pids[found.hosts[0]], signal.SIGKILL)
    assert counter.increment() == counted + 1
    return 1e3 * (time.perf_counter() - started)
