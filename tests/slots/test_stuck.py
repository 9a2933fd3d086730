"""Children that don't read, or don't get ready: nobody else waits for them."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from skyward_dask.errors import SlotStartFailed, TaskTimeout
from skyward_dask.slots.executor import SlotPool
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.runs import Request, Run
from skyward_dask.slots.trees import is_stopped

pytestmark = [pytest.mark.crash, pytest.mark.platform]

#: More than a socket's buffer holds.
LARGE = b"x" * (8 << 20)
needs_fork = pytest.mark.skipif(not available(Feature.FORK), reason="children are started by exec here")


def until_all_idle(pool: SlotPool) -> None:
    while {slot.state for slot in pool.snapshots()} != {"idle"}:
        time.sleep(0.001)


def ask_and_be_stopped() -> int:
    """Ask the worker for something, and be stopped before the answer comes."""
    from tests.slots import backend

    outcome: Future[bytes] = Future()
    backend.link.begin(outcome, "large", os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)
    return len(outcome.result())


def stopped_child() -> psutil.Process:
    """Wait for one of this process's descendants to be stopped."""
    while True:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.status() == psutil.STATUS_STOPPED:
                    return process
        time.sleep(0.001)


@pytest.mark.parametrize("end", ["goes on", "is ended"])
def test_an_answer_to_a_child_that_does_not_read(end: str) -> None:
    """Whoever gives it doesn't wait, and the other slot works; the child gets it whole, or can be ended."""
    answer: Future[bytes] = Future()
    run = Run(Request("k", ask_and_be_stopped, serve=lambda *_: answer))
    with SlotPool(2, backend="tests.slots.backend:start") as pool, ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(pool.carry_out, run)
        child = stopped_child()
        while not answer._done_callbacks:
            time.sleep(0.001)
        answer.set_result(LARGE)
        assert pool.submit(pow, 2, 3).result() == 8
        if end == "goes on":
            child.resume()
            assert outcome.result() == len(LARGE)
        else:
            assert pool.interrupt(run)
            assert isinstance(outcome.exception(), CancelledError)


def test_callers_of_a_pool_that_is_held_up() -> None:
    """Don't wait for it: more of them than its loop's wake-up socket holds bytes."""
    held, release = threading.Event(), threading.Event()

    def hold(*_: str) -> None:
        held.set()
        release.wait()

    with SlotPool(1, on_output=hold) as pool:
        futures = [pool.submit(print, "a line")]
        held.wait()
        futures += [pool.submit(print) for _ in range(1_000)]
        release.set()
        wait(futures)


_STOPS = """
import os, signal
from pathlib import Path

def stop():
    if Path(__file__ + ".flag").exists():
        os.kill(os.getpid(), signal.SIGSTOP)

os.register_at_fork(after_in_child=stop)
"""


@needs_fork
def test_a_child_that_is_stopped_while_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it has read what it is to prepare: the other slot's time-outs hold, and it is given up."""
    (tmp_path / "stops.py").write_text(_STOPS)
    flag = tmp_path / "stops.py.flag"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("skyward_dask.slots.templates.PATIENCE", 2.0)
    failed = threading.Event()
    with SlotPool(
        2,
        pre_import=("stops",),
        initializer=partial(len, LARGE),
        on_event=lambda event, *_: event == "failed-start" and failed.set(),
    ) as pool:
        pid = pool.submit(os.getpid).result()
        until_all_idle(pool)
        flag.touch()
        os.kill(pid, signal.SIGKILL)
        child = stopped_child()
        flag.unlink()  # the next one of the other slot isn't stopped
        with pytest.raises(TaskTimeout):
            pool.run(Request("late", time.sleep, (1000,), timeout=0.1))
        assert failed.wait(timeout=200)
        assert not child.is_running()
        assert list(pool.map(abs, range(-4, 0))) == [4, 3, 2, 1]


_SLOW = """
import os, time
os.register_at_fork(before=lambda: time.sleep(0.2))
"""


@needs_fork
def test_a_template_with_much_to_do_is_not_deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts its children one by one; together, that takes longer than it may be silent."""
    (tmp_path / "slow.py").write_text(_SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("skyward_dask.slots.templates.PATIENCE", 1.5)
    started = threading.Semaphore(0)
    with SlotPool(
        10, pre_import=("slow",), on_event=lambda event, *_: event == "start" and started.release()
    ) as pool:
        for _ in range(10):
            assert started.acquire(timeout=200)
        assert {slot.state for slot in pool.snapshots()} == {"idle"}
        assert len({psutil.Process(slot.pid).ppid() for slot in pool.snapshots()}) == 1


def say_and_wait(name: str) -> None:
    Path(name).write_text(str(os.getpid()))
    time.sleep(1000)


def test_a_stopped_template_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it has a death to report and a child to start, the other slot's time-outs hold."""
    monkeypatch.setattr("skyward_dask.slots.templates.PATIENCE", 4.0)
    said = tmp_path / "said"
    os.mkfifo(said)
    was_stopped: list[bool] = []

    def hear(event: str, *_: int) -> None:
        if event == "kill":
            was_stopped.append(is_stopped(template))

    with SlotPool(2, on_event=hear) as pool:
        template = pool.submit(os.getppid).result()
        until_all_idle(pool)
        repeated = pool.submit(say_and_wait, str(said))
        pid = int(said.read_text())
        os.kill(template, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(TaskTimeout):
            pool.run(Request("late", time.sleep, (1000,), timeout=0.1))
        assert was_stopped == [True]  # it is lost later, when its own time is over
        assert int(said.read_text()) != pid
        pool.stop(repeated)


def hang() -> None:
    time.sleep(1000)


@pytest.mark.parametrize("where", ["initializer", pytest.param("pre_import", marks=needs_fork)])
def test_a_start_that_hangs_fails(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, and says so; none of its calls waits for ever."""
    (tmp_path / "hangs.py").write_text("import time; time.sleep(1000)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("skyward_dask.slots.templates.PATIENCE", 1.0)
    monkeypatch.setattr("skyward_dask.slots.templates.START_LIMIT", 3.0)
    options: dict[str, Any] = {"initializer": hang} if where == "initializer" else {"pre_import": ("hangs",)}
    with SlotPool(1, **options) as pool, pytest.raises(SlotStartFailed, match=r"3 s.*hang"):
        pool.run(Request("k", pow, (2, 3)))
