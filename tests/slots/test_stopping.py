"""Runs that are stopped, limited or outlive their template, on the pool alone."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mmap
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from skyward_dask.errors import SlotCrashed, SlotOutOfMemory, SlotStartFailed, TaskTimeout
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.executor import SlotPool
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.memory.segments import is_supported
from skyward_dask.slots.runs import Request, Run
from tests.sizes import size, sized

pytestmark = [pytest.mark.crash, pytest.mark.platform]

MIB = 2**20
needs_subreaper = pytest.mark.skipif(
    not available(Feature.SUBREAPER), reason="without a subreaper process groups are all that can be ended"
)
needs_fork = pytest.mark.skipif(not available(Feature.FORK), reason="children are started by exec here")


@pytest.fixture
def pool() -> Iterator[SlotPool]:
    with SlotPool(1, grace=0.3) as pool:
        yield pool


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a silent template up after two seconds, instead of five."""
    monkeypatch.setattr("skyward_dask.slots.templates.PATIENCE", 2.0)


def say(started: str) -> None:
    Path(started).write_text(str(os.getpid()))


def hear(started: str) -> int:
    return int(Path(started).read_text())


# --- ways of being busy ------------------------------------------------------------------------------------


def spin(started: str) -> None:
    say(started)
    while True:
        pass


def sleep(started: str) -> None:
    say(started)
    time.sleep(1000)


def hold_off(started: str) -> None:
    """Ignore the interrupt."""
    say(started)
    while True:
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            continue


def hold_the_gil(started: str) -> None:
    """Be in C code that never lets go, nor looks at signals."""
    say(started)
    pow(7, 10**9)


def ignore_signals(started: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say(started)
    time.sleep(1000)


def wait_in_c(started: str) -> None:
    """Be in C code that any signal ends."""
    say(started)
    ctypes.CDLL(None).poll(None, 0, 1_000_000)


BUSY = [spin, sleep, hold_off, hold_the_gil, ignore_signals, wait_in_c]


# --- stop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", BUSY)
def test_a_running_call_is_stopped(pool: SlotPool, started: str, busy: Any) -> None:
    """However it is busy; the slot then works again, in another process."""
    future = pool.submit(busy, started)
    pid = hear(started)
    assert pool.stop(future)
    with pytest.raises(CancelledError):
        future.result()
    assert pool.submit(os.getpid).result() != pid
    assert pool.snapshots()[0].kills == 1 and pool.snapshots()[0].crashes == 0


def test_an_interrupted_call_cleans_up(started: str, tmp_path: Path) -> None:
    """`finally` runs, if its time for that isn't over."""

    def work(link: str, name: str) -> None:
        try:
            sleep(link)
        finally:
            Path(name).write_text("clean")

    with SlotPool(1, grace=60) as pool:
        future = pool.submit(work, started, str(tmp_path / "done"))
        hear(started)
        pool.stop(future)
        with pytest.raises(CancelledError):
            future.result()
    assert (tmp_path / "done").read_text() == "clean"


def test_a_waiting_call_is_stopped_before_it_runs(pool: SlotPool, started: str, tmp_path: Path) -> None:
    """Its body never runs; what runs before it goes on."""
    running = pool.submit(_once_more, started)
    hear(started)
    request = Run(Request("waiting", Path.touch, (tmp_path / "ran",)))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.carry_out, request)
        assert pool.interrupt(request)
        assert isinstance(waiting.exception(), CancelledError)
    assert running.running()
    pool.stop(running)
    assert not (tmp_path / "ran").exists()


def test_a_call_that_has_ended_cannot_be_stopped(pool: SlotPool) -> None:
    """It says so, and the result stays."""
    future = pool.submit(pow, 2, 3)
    assert future.result() == 8
    assert not pool.stop(future)


@sized
def test_stops_at_the_edge_of_the_end() -> None:
    """A stop that comes as the call ends hits that call or nothing: never the next one in the slot."""
    chance = random.Random(1)
    edges = size(150, 5_000 if available(Feature.FORK) else 200)
    with SlotPool(1) as pool:
        pool.submit(time.sleep, 0).result()
        for number in range(edges):
            future = pool.submit(_nap, 0.002)
            following = pool.submit(abs, -number)
            time.sleep(0.002 + chance.uniform(-0.001, 0.001))  # the moment is what is tried
            stopped = pool.stop(future)
            assert following.result() == number
            if stopped:
                with pytest.raises(CancelledError):
                    future.result()
            else:
                assert future.result() == "rested"


def _nap(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "rested"


# --- time-outs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", BUSY)
def test_a_call_that_takes_too_long_is_ended(pool: SlotPool, started: str, busy: Any) -> None:
    """With the stack on which it stood, whoever held the GIL."""
    heard = os.open(started, os.O_RDWR)  # so that the call waits for nobody
    with pytest.raises(TimeoutError) as caught:
        pool.run(Request("late", busy, (started,), timeout=0.4))
    os.close(heard)
    assert isinstance(caught.value, TaskTimeout)
    assert (caught.value.key, caught.value.seconds) == ("late", 0.4)
    assert f"in {busy.__name__}" in caught.value.stack
    assert "_listen" not in caught.value.stack


def test_a_child_that_dies_while_it_is_looked_at(pool: SlotPool, started: str) -> None:
    """Its run had timed out, and that is told and counted."""
    heard = os.open(started, os.O_RDWR)
    run = Run(Request("late", spin, (started,), timeout=1))
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(pool.carry_out, run)
        pid = int(os.read(heard, 20))
        os.kill(pid, signal.SIGSTOP)
        while run.verdict is None:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(future.exception(), TaskTimeout)
    os.close(heard)
    assert pool.snapshots()[0].kills == 1


class Slow:
    """Takes its time to unpickle, as what imports a large package does, and is None then."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (1.5,)


def test_the_time_of_a_call_begins_with_it(pool: SlotPool) -> None:
    """Not with its arguments, which are unpickled before."""
    assert pool.run(Request("key", repr, (Slow(),), timeout=1)) == "None"
    with pytest.raises(TaskTimeout):
        pool.run(Request("key", time.sleep, (100,), timeout=0.2))


def test_a_call_in_time_is_not_ended(pool: SlotPool) -> None:
    """A deadline that passes later concerns nobody."""
    for _ in range(3):
        assert pool.run(Request("quick", pow, (2, 3), timeout=1)) == 8
    assert pool.run(Request("slow", _nap, (1.2,))) == "rested"


# --- memory ------------------------------------------------------------------------------------------------


def _at_once(limit: int) -> int:
    return len(bytearray(b"\1") * (16 * limit))


def _slowly(limit: int) -> None:
    leak = []
    while True:
        leak.append(bytearray(os.urandom(MIB)))


def _in_a_process(limit: int) -> None:
    code = f"x = bytearray(b'x') * {4 * limit}; input()"
    subprocess.run([sys.executable, "-c", code], stdin=subprocess.PIPE, check=True)


def _in_an_anonymous_mapping(limit: int) -> None:
    mapped = mmap.mmap(-1, 4 * limit)
    for start in range(0, 4 * limit, MIB):
        mapped[start : start + MIB] = bytes(MIB)
    time.sleep(1000)


def _in_a_named_segment(limit: int) -> None:
    from multiprocessing.shared_memory import SharedMemory

    segment = SharedMemory(create=True, size=4 * limit)
    segment.unlink()  # nobody needs the name
    for start in range(0, 4 * limit, MIB):
        segment.buf[start : start + MIB] = bytes(MIB)
    time.sleep(1000)


@pytest.mark.parametrize(
    "leak", [_at_once, _slowly, _in_a_process, _in_an_anonymous_mapping, _in_a_named_segment]
)
def test_a_call_that_takes_too_much_memory_is_ended(pool: SlotPool, leak: Any) -> None:
    """At once, slowly, or in a process that it started."""
    limit = 100 * MIB
    with pytest.raises(MemoryError) as caught:
        pool.run(Request("hog", leak, (limit,), memory_limit=limit))
    assert isinstance(caught.value, SlotOutOfMemory)
    assert caught.value.limit == limit < caught.value.peak
    assert pool.submit(pow, 2, 3).result() == 8


@pytest.mark.skipif(not is_supported(), reason="nothing is shared here: inputs are copied to the child")
def test_inputs_that_are_only_read_do_not_count(pool: SlotPool) -> None:
    """However large they are: their pages are the worker's."""
    np = pytest.importorskip("numpy")
    large = np.ones(300 * MIB // 8)

    def read(x: Any) -> float:
        total = float(x.sum())
        time.sleep(0.5)  # for longer than it takes to look
        return total

    assert pool.run(Request("reader", read, (large,), memory_limit=150 * MIB)) == large.size


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux only")
def test_the_kernel_takes_a_slot_before_its_worker(pool: SlotPool) -> None:
    """Should it run out of memory."""
    score = Path("/proc/self/oom_score_adj")
    assert int(pool.submit(score.read_text).result()) > int(score.read_text())


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux only")
def test_a_slot_interrupts_nobody_when_it_gets_a_run(pool: SlotPool) -> None:
    """Neither its worker nor another slot that has the core."""
    assert pool.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH


# --- replacement -------------------------------------------------------------------------------------------


def test_a_child_is_replaced_after_so_many_calls() -> None:
    """Silently: no crash, no kill."""
    events: list[str] = []
    with SlotPool(1, max_tasks=3, on_event=lambda event, *_: events.append(event)) as pool:
        pids = [pool.submit(os.getpid).result() for _ in range(9)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]
    assert not {"crash", "kill", "failed-start"} & set(events)


def test_children_that_are_gone_are_let_go_of() -> None:
    """At once: a pool may replace hundreds a second, and each has buffers of its own."""

    def count() -> int:
        return sum(isinstance(found, ChildProcess) for found in gc.get_objects())

    gc.collect()
    others = count()
    with SlotPool(1, max_tasks=1) as pool:
        for _ in range(10):
            pool.submit(abs, -1).result()
        while count() > others + 4:
            time.sleep(0.01)


def test_a_replacement_is_warm_before_it_is_needed(started: str) -> None:
    """It is ready while the last call of the old child still runs."""
    ready = threading.Semaphore(0)
    with SlotPool(1, max_tasks=1, on_event=lambda event, *_: event == "start" and ready.release()) as pool:
        ready.acquire()
        future = pool.submit(sleep, started)
        hear(started)
        ready.acquire()  # the second start, though the slot is taken
        assert pool.snapshots()[0].state == "busy"
        pool.stop(future)


@needs_fork
def test_random_numbers_differ_and_hashes_do_not() -> None:
    """Fresh processes are forks of one: their numbers are their own, their hashes the same."""
    np = pytest.importorskip("numpy")
    with SlotPool(2, max_tasks=1, pre_import=("numpy.random",)) as pool:
        numbers = [pool.submit(lambda: np.random.rand()).result() for _ in range(20)]
        hashes = {pool.submit(hash, "a").result() for _ in range(4)}
        os.kill(_template(pool), signal.SIGKILL)
        hashes |= {pool.submit(hash, "a").result() for _ in range(4)}
    assert len(set(numbers)) == 20
    assert len(hashes) == 1


_MADE_AT_IMPORT = """
import random, numpy
class Holder:
    own = numpy.random.RandomState()
unseeded = [numpy.random.default_rng(), {"b": random.Random()}, Holder]
seeded = numpy.random.default_rng(42), random.Random(42), numpy.random.RandomState(42)
def draw():
    generator, others, holder = unseeded
    mine = generator.random(), others["b"].random(), holder.own.random()
    return mine, tuple(each.random() for each in seeded)
"""


@needs_fork
def test_generators_made_at_import_are_each_childs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever their module keeps them; those with a seed draw what the seed says."""
    pytest.importorskip("numpy")
    (tmp_path / "made_at_import.py").write_text(_MADE_AT_IMPORT)
    monkeypatch.syspath_prepend(tmp_path)

    def draw() -> Any:
        return sys.modules["made_at_import"].draw()

    with SlotPool(2, max_tasks=1, pre_import=("made_at_import",)) as pool:
        drawn = [pool.submit(draw).result() for _ in range(4)]
    assert [len(set(column)) for column in zip(*(mine for mine, _ in drawn), strict=True)] == [4, 4, 4]
    assert len({seeded for _, seeded in drawn}) == 1


def _template(pool: SlotPool) -> int:
    return int(pool.submit(os.getppid).result())


# --- looks -------------------------------------------------------------------------------------------------


def poll_in_c(started: str, release: str, holds_the_gil: bool) -> tuple[int, int]:
    """What poll(2) gives when it may go on, and its errno: 0 if nothing has cut it short."""
    libc = ctypes.PyDLL(None, use_errno=True) if holds_the_gil else ctypes.CDLL(None, use_errno=True)
    wanted = (ctypes.c_int * 2)(os.open(release, os.O_RDONLY | os.O_NONBLOCK), select.POLLIN)
    said = os.open(started, os.O_WRONLY)
    os.write(said, b"1")
    libc.close(said)  # whoever hears it finds this thread in C code
    return libc.poll(wanted, 1, -1), ctypes.get_errno()


@pytest.mark.parametrize("holds_the_gil", [False, True])
def test_a_look_is_not_felt(
    pool: SlotPool, started: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds_the_gil: bool
) -> None:
    """By a call that waits in C code, which no signal of ours interrupts; though the loop is held up then."""
    os.mkfifo(release := str(tmp_path / "release"))
    run = Run(Request("waits", poll_in_c, (started, release, holds_the_gil)))
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(pool.carry_out, run)
        hear(started)
        assert run.child is not None
        stacks, give_signal = run.child.stacks, run.child.stacks._signal_listener

        def give_signal_and_hold_up() -> None:
            give_signal()
            asyncio.get_running_loop().call_soon(time.sleep, 0.7)

        monkeypatch.setattr(stacks, "_signal_listener", give_signal_and_hold_up)
        stack = pool.stack(run)
        Path(release).write_text("go on")
        assert future.result() == (1, 0) and "in poll_in_c" in stack


def recurse_until(end: str) -> int:
    def deep(n: int) -> int:
        return n and deep(n - 1)

    while not os.path.exists(end):
        deep(900)
    return os.getpid()


def test_many_looks_harm_nobody(pool: SlotPool, tmp_path: Path) -> None:
    """Frames come and go as they are read; a crash afterwards is reported with its own stack."""
    run = Run(Request("deep", recurse_until, (str(tmp_path / "end"),)))
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(pool.carry_out, run)
        while "in recurse_until" not in pool.stack(run):
            assert not future.done()
        for _ in range(100):
            pool.stack(run)
        (tmp_path / "end").touch()
        assert future.result() == pool.submit(os.getpid).result()
    with pytest.raises(SlotCrashed) as caught:
        pool.submit(os.abort).result()
    assert "Fatal Python error: Aborted" in caught.value.stack and "recurse_until" not in caught.value.stack


# --- starts that fail --------------------------------------------------------------------------------------


def test_starts_that_fail_are_spaced_out(tmp_path: Path) -> None:
    """Callers hear why within seconds, and a machine isn't flooded with processes that fail."""
    starts: list[str] = []
    log = tmp_path / "starts"

    def fail() -> None:
        with log.open("a") as file:
            file.write("x")
        raise RuntimeError("no licence")

    with (
        SlotPool(1, initializer=fail, on_event=lambda event, *_: starts.append(event)) as pool,
        ThreadPoolExecutor(1) as threads,
    ):
        failures = [threads.submit(pool.run, Request("x", pow, (2, 3))).exception() for _ in range(5)]
    assert all(isinstance(failure, SlotStartFailed) for failure in failures)
    assert all("no licence" in str(failure) for failure in failures)
    assert len(log.read_text()) <= 6 and set(starts) == {"failed-start"}


# --- the template ------------------------------------------------------------------------------------------


def test_a_killed_template_costs_nothing_but_time(started: str) -> None:
    """Its children's calls are repeated; the slots are served by another one."""
    with SlotPool(2) as pool:
        template = _template(pool)
        future = pool.submit(_once_more, started)
        first = hear(started)
        os.kill(template, signal.SIGKILL)
        second = hear(started)
        assert future.result() == second != first
        assert _template(pool) != template
        assert sum(slot.crashes for slot in pool.snapshots()) == 0


def _once_more(started: str) -> int:
    """Run for ever, unless it is the second time."""
    again = Path(started + ".again").exists()
    Path(started + ".again").touch()
    say(started)
    time.sleep(0 if again else 1000)
    return os.getpid()


def test_a_call_that_keeps_killing_its_template_fails() -> None:
    """It isn't repeated for ever."""

    def kill_the_template() -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)

    with SlotPool(1) as pool:
        with pytest.raises(SlotCrashed):
            pool.submit(kill_the_template).result()
        assert pool.submit(pow, 2, 3).result() == 8


@pytest.mark.usefixtures("impatient")
def test_a_stopped_template_is_replaced(started: str) -> None:
    """A child that dies is buried, and one is started, though the template does nothing any more."""
    with SlotPool(1) as pool:
        template = _template(pool)
        os.kill(template, signal.SIGSTOP)
        future = pool.submit(_once_more, started)
        os.kill(hear(started), signal.SIGKILL)
        again = hear(started)
        assert future.result() == again  # nobody saw how the first died: it isn't blamed on the call
        assert _template(pool) != template


_HARMED = """
import os
from pathlib import Path

if not Path(__file__ + ".seen").exists():
    Path(__file__ + ".seen").touch()
    os.kill(os.getpid(), {number})
"""


@needs_fork
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.usefixtures("impatient")
def test_a_template_that_is_harmed_while_it_prepares_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Stopped, it would never be ready; nothing has failed."""
    (tmp_path / "harmed.py").write_text(_HARMED.format(number=int(number)))
    monkeypatch.syspath_prepend(tmp_path)
    with SlotPool(1, pre_import=("harmed",)) as pool:
        assert pool.submit(pow, 2, 3).result(timeout=200) == 8


# --- what tasks start --------------------------------------------------------------------------------------

_LEFTOVERS = """
import multiprocessing, os, subprocess, sys, time
from pathlib import Path

def rest(_):
    time.sleep(1000)

def start_everything(folder, started):
    '''A pool, a session of its own, and a daemon that has forked twice.'''
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.map_async(rest, range(2))
    pids = [process.pid for process in pool._pool]
    pids.append(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            time.sleep(1000)
        os._exit(0)
    pids.append(int(os.read(reader, 20)))
    os.wait()
    Path(folder, "pids").write_text(" ".join(map(str, [os.getpid(), *pids])))
    Path(started).write_text("1")
    time.sleep(1000)
"""


def _leftovers() -> Any:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(_LEFTOVERS, scope)
    return scope["start_everything"]


def _started(folder: Path) -> list[int]:
    """The task and all that it has started."""
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def _gone(pids: list[int]) -> bool:
    """Whether all that the task had started goes, by itself: waited for, since others do the killing."""
    deadline = time.monotonic() + 200
    while (left := [pid for pid in pids if _lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(pids) == 5 and not left


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@needs_subreaper
@pytest.mark.parametrize("how", ["stop", "time-out", "child", "template", "end"])
def test_what_a_task_has_started_ends_with_it(tmp_path: Path, started: str, how: str) -> None:
    """Pools, sessions of their own, daemons that forked twice: whatever ends the task."""
    with SlotPool(1, grace=0.2) as pool, ThreadPoolExecutor(1) as threads:
        timeout = 5.0 if how == "time-out" else None
        request = Request("busy", _leftovers(), (str(tmp_path), started), timeout=timeout)
        future = threads.submit(pool.run, request)
        hear(started)
        pids = _started(tmp_path)
        match how:
            case "child":
                os.kill(pids[0], signal.SIGKILL)
            case "template":
                os.kill(_parent(pool), signal.SIGKILL)
                assert _gone(pids)
                hear(started)  # it is run again
                pids = _started(tmp_path)
                pool.end()
            case "stop" | "end":
                pool.end()
        assert isinstance(future.exception(), (CancelledError, TaskTimeout, SlotCrashed))
        assert _gone(pids)


@needs_subreaper
@pytest.mark.usefixtures("impatient")
def test_what_a_dead_child_has_left_ends_with_a_stopped_template(tmp_path: Path, started: str) -> None:
    """It has come to a template that can't end it, and would be nobody's after that."""
    with SlotPool(1) as pool:
        os.kill(_template(pool), signal.SIGSTOP)
        pool.submit(_leftovers(), str(tmp_path), started)
        hear(started)
        first = (tmp_path / "pids").rename(tmp_path / "first").read_text()
        os.kill(int(first.split()[0]), signal.SIGKILL)
        hear(started)  # it is run again, by another template
        assert not [pid for pid in first.split() if _lives(int(pid))]
        pool.end()


@needs_subreaper
def test_what_is_left_between_two_deaths_ends_too(tmp_path: Path) -> None:
    """Of the template and of the child, before the worker can see to either: it has come to pid 1."""
    log = tmp_path / "pids"

    def leave() -> None:
        daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        with log.open("a") as file:
            file.write(f"{daemon.pid} ")
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)

    with SlotPool(1) as pool, pytest.raises(SlotCrashed):
        pool.submit(leave).result()
    assert log.read_text().split()
    assert not [pid for pid in log.read_text().split() if _lives(int(pid))]


def _parent(pool: SlotPool) -> int:
    pid = pool.snapshots()[0].pid
    assert pid is not None
    return int(psutil.Process(pid).ppid())


@needs_subreaper
@pytest.mark.parametrize("victim", ["worker", "template and worker stopped"])
def test_nothing_outlives_the_worker(tmp_path: Path, started: str, victim: str) -> None:
    """Not even when nobody in it could do anything about it."""
    program = f"""
{_LEFTOVERS}
import sys
from skyward_dask.slots.executor import SlotPool
if __name__ == "__main__":
    pool = SlotPool(1)
    print(pool.submit(os.getppid).result(), flush=True)
    pool.submit(start_everything, {str(tmp_path)!r}, {started!r})
    sys.stdin.read()
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin and worker.stdout
    with worker:
        template = int(worker.stdout.readline())
        hear(started)
        if victim != "worker":
            os.kill(template, signal.SIGSTOP)
        worker.kill()
    assert _gone(_started(tmp_path))


# --- the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [*BUSY, "stopped"])
def test_a_pool_ends_whatever_its_children_do(started: str, busy: Any) -> None:
    """In C code, stopped, or deaf to signals: they are killed."""
    pool = SlotPool(1)
    future = pool.submit(sleep if busy == "stopped" else busy, started)
    pid = hear(started)
    if busy == "stopped":
        os.kill(pid, signal.SIGSTOP)
    pool.end()
    assert isinstance(future.exception(), CancelledError)
    assert not _lives(pid)


def test_a_seceded_call_makes_room(started: str) -> None:
    """Its slot takes another call meanwhile, and its child is used again."""
    with SlotPool(1) as pool, ThreadPoolExecutor(1) as threads:
        run = Run(Request("seceding", sleep, (started,)))
        future = threads.submit(pool.carry_out, run)
        pid = hear(started)
        pool.secede(run)
        assert pool.submit(os.getpid).result() != pid
        assert pool.interrupt(run)
        assert isinstance(future.exception(), CancelledError)
