"""Processes that a task leaves: dead ones are taken note of, and resource trackers may do their work."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import psutil
import pytest

from skyward_dask.errors import SlotCrashed
from skyward_dask.slots.executor import SlotPool
from skyward_dask.slots.features import Feature, available

pytestmark = [
    pytest.mark.platform,
    pytest.mark.skipif(not available(Feature.SUBREAPER), reason="nobody gets the orphans here"),
]


@pytest.fixture
def pool() -> Iterator[SlotPool]:
    with SlotPool(1) as pool:
        yield pool


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leave_an_orphan(way: str) -> int:
    """The pid of a process that has lost its parent, and will soon end."""
    if way == "shell":
        return int(subprocess.check_output(["sh", "-c", "sleep 0.01 >/dev/null & echo $!"]))
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        if (orphan := os.fork()) == 0:
            os.setsid()
            os._exit(0)
        os.write(writer, str(orphan).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    orphan = int(os.read(reader, 100))
    os.close(reader), os.close(writer)
    return orphan


@pytest.mark.parametrize("way", ["shell", "fork"])
def test_dead_orphans_do_not_stay(pool: SlotPool, way: str) -> None:
    """Of a process that idles, and of one that is busy with other calls."""
    orphans = {pool.submit(leave_an_orphan, way).result() for _ in range(5)}
    until(lambda: not any(map(psutil.pid_exists, orphans)))
    orphan = pool.submit(leave_an_orphan, way).result()
    until(lambda: pool.submit(psutil.pid_exists, orphan).result() is False)


def start(way: str) -> int:
    """Start a process that ends at once with 7."""
    program = [sys.executable, "-S", "-c", "import os; os._exit(7)"]
    match way:
        case "Popen":
            kept = subprocess.Popen(program)
            pid = kept.pid
        case "multiprocessing":
            kept = multiprocessing.get_context("fork").Process(target=os._exit, args=(7,))
            kept.start()
            pid = kept.pid
        case "posix_spawn":
            kept = pid = os.posix_spawn(sys.executable, program, os.environ)
        case _:
            kept = pid = os.fork()
            if not pid:
                os._exit(7)
    sys.kept = kept  # type: ignore[attr-defined]
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return int(pid)


def exit_code() -> int:
    kept = sys.kept  # type: ignore[attr-defined]
    if isinstance(kept, int):
        return os.waitstatus_to_exitcode(os.waitpid(kept, 0)[1])
    if isinstance(kept, subprocess.Popen):
        return kept.wait()
    kept.join()
    return int(kept.exitcode)


@pytest.mark.parametrize("way", ["Popen", "multiprocessing", "posix_spawn", "fork"])
def test_a_task_waits_for_its_own_children(pool: SlotPool, way: str) -> None:
    """However late: in another call, when orphans have been taken note of."""
    pool.submit(start, way).result()
    orphan = pool.submit(leave_an_orphan, "fork").result()
    until(lambda: not psutil.pid_exists(orphan))
    assert pool.submit(exit_code).result() == 7


def fork_in_c() -> int:
    """Nobody but C code knows of it."""
    libc = ctypes.CDLL(None)
    if (pid := libc.fork()) == 0:
        os._exit(7)
    leave_an_orphan("fork")
    status = ctypes.c_int()
    assert libc.waitpid(pid, ctypes.byref(status), 0) == pid
    return os.waitstatus_to_exitcode(status.value)


def test_c_code_waits_for_its_own_children(pool: SlotPool) -> None:
    """While its call runs, no child is taken away from it."""
    assert [pool.submit(fork_in_c).result() for _ in range(5)] == [7] * 5


def take_shared_memory(name: str) -> int:
    sys.kept = SharedMemory(name, create=True, size=1000)  # type: ignore[attr-defined]
    return os.getpid()


@pytest.mark.crash
@pytest.mark.parametrize("end", ["replaced", "killed", "closed"])
def test_trackers_remove_what_a_process_left(end: str) -> None:
    """However it ended: what multiprocessing promises of its shared memory holds."""
    name = f"skyward-test-{os.getpid()}-{end}"
    path = Path("/dev/shm", name)
    with SlotPool(1, max_tasks=1 if end == "replaced" else None) as pool:
        pool.submit(take_shared_memory, name).result()
        if end == "killed":
            with pytest.raises(SlotCrashed):
                pool.submit(os.kill, pool.submit(os.getpid).result(), 9).result()
        if end != "closed":
            until(lambda: not path.exists())
    assert not path.exists()
