"""Dask's profiler in a worker whose slot threads wait for children, and come back, all the time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from distributed import Scheduler, Worker
from distributed.utils_test import gen_cluster

from skyward_dask.extension.profiling import Profiling
from skyward_dask.extension.running import TaskRun


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def wait_for_a_child() -> int:
    return sum(range(50))


@pytest.mark.usefixtures("busy_switching")
@gen_cluster(nthreads=[("127.0.0.1", 1)])
async def test_a_thread_that_waits_is_never_sampled(s: Scheduler, a: Worker) -> None:
    """Though it begins to wait while the sample is taken."""
    profiling, done = Profiling(a), threading.Event()

    def come_and_go() -> None:
        me = threading.get_ident()
        with a.active_threads_lock:
            a.active_threads[me] = "task"
        while not done.is_set():
            with profiling.away("task", TaskRun()):
                wait_for_a_child()
        with a.active_threads_lock:
            del a.active_threads[me]

    thread = threading.Thread(target=come_and_go, daemon=True)
    thread.start()
    triggers = 0
    while triggers < 3000 or not a.profile_recent["count"]:  # until the thread was also seen when it was here
        profiling._trigger()
        triggers += 1
    done.set()
    thread.join()
    assert "wait_for_a_child" not in str(a.profile_recent)
