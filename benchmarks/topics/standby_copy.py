"""A new standby for a dict of 256 MiB, in values of 1 MiB, under up to 1,000 writes a second.

From the SIGKILL of the old standby until a third worker is in step.
"""

import os
import signal
import threading
import time

import skyward_dask as sky
from benchmarks.clusters import dask_workers
from benchmarks.goals import Goal, figure

UNIT = "MB/s"
HIGHER_IS_BETTER = True
OURS = "skyward_dask, client"
REFERENCE = OURS
GOALS = [Goal("copy to a new standby, MB/s", figure(OURS), least=100)]
_MEBIBYTES = 256


def contenders(settings, enter):
    client, shared = filled(enter)
    return {OURS: lambda: copied(client, shared)[0]}


def filled(enter):
    client = enter(dask_workers(workers=3, threads=1))
    shared = sky.dict("big", client=client)
    for number in range(_MEBIBYTES):
        shared[number] = bytes([number % 256]) * (1 << 20)
    return client, shared


def copied(client, shared) -> tuple[float, float]:
    """Megabytes per second, and the 99th percentile of writes meanwhile in milliseconds."""
    client.wait_for_workers(3)
    found = _in_step(client)
    pids = client.run(os.getpid)
    over, times = threading.Event(), []
    writer = threading.Thread(target=_write, args=(shared, over, times))
    writer.start()
    started = time.perf_counter()
    os.kill(pids[found.standby[0]], signal.SIGKILL)
    while sky.collections(client)["big"].standby == found.standby:
        time.sleep(0.001)
    _in_step(client)
    lasted = time.perf_counter() - started
    over.set()
    writer.join()
    return _MEBIBYTES * 1.048576 / lasted, 1e3 * sorted(times)[int(0.99 * len(times))]


def _in_step(client):
    while not (found := sky.collections(client)["big"]).in_step:
        time.sleep(0.001)
    return found


def _write(shared, over, times) -> None:
    while not over.wait(0.001):
        started = time.perf_counter()
        shared["written"] = started
        times.append(time.perf_counter() - started)
