"""`SlotPool` alone: real children, real crashes, no Dask."""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import multiprocessing
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from skyward_dask.errors import SerializationError, SlotCrashed, SlotStartFailed
from skyward_dask.slots import pool as pool_module
from skyward_dask.slots.aside import HELPERS
from skyward_dask.slots.executor import SlotPool
from skyward_dask.slots.runs import Request
from tests.sizes import size, sized
from tests.slots.waiting import children, until_there

pytestmark = pytest.mark.platform


@pytest.fixture(scope="module")
def shared_pool() -> Iterator[SlotPool]:
    with SlotPool(2) as pool:
        yield pool


def block(started: str, release: str) -> int:
    """Say that it runs, then wait for the other end: opening a fifo waits for its partner."""
    Path(started).write_text("")
    Path(release).read_text()
    return os.getpid()


def crash(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit(4)
        case "interrupt":
            raise KeyboardInterrupt
        case "abort":
            os.abort()
        case "segfault":
            import faulthandler

            faulthandler._sigsegv()  # type: ignore[attr-defined]
        case "close":
            os.closerange(3, 1000)
            time.sleep(1000)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)


# --- calls -------------------------------------------------------------------------------------------------


def test_calls_run_in_children(shared_pool: SlotPool) -> None:
    """A call has another pid than its caller, who is an ancestor."""
    child = psutil.Process(shared_pool.submit(os.getpid).result())
    assert os.getpid() in {parent.pid for parent in child.parents()}


def test_map_keeps_the_order(shared_pool: SlotPool) -> None:
    """As every executor's."""
    assert list(shared_pool.map(abs, range(-50, 0))) == list(range(50, 0, -1))


def test_lambdas_and_closures_cross_both_ways(shared_pool: SlotPool) -> None:
    """Functions travel by value where they must, in both directions."""
    factor = 3
    times = shared_pool.submit(lambda: lambda x: x * factor).result()
    assert times(4) == 12


def test_a_managers_proxy_is_an_argument(shared_pool: SlotPool) -> None:
    """And a result: children know what multiprocessing's processes know each other by."""

    def add(inner: list[Any], key: str) -> Any:
        (found,) = inner
        found[key] = len(found)
        return found

    with multiprocessing.get_context("spawn").Manager() as manager:
        mine = manager.dict()
        theirs = [shared_pool.submit(add, [mine], key).result() for key in "ab"]
        theirs[1]["c"] = 2
        assert mine.copy() == {"a": 0, "b": 1, "c": 2}


def test_slots_run_at_once(shared_pool: SlotPool, tmp_path: Path) -> None:
    """Two calls that wait for each other both end."""
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    os.mkfifo(there), os.mkfifo(back)
    first = shared_pool.submit(block, there, back)
    second = shared_pool.submit(lambda: (Path(there).read_text(), Path(back).write_text(""), os.getpid())[2])
    assert first.result() != second.result()


def test_a_pool_that_grows_runs_more_at_once(tmp_path: Path) -> None:
    """So many calls that wait for each other as it has slots now; those that were submitted before, too."""
    gate = str(tmp_path / "gate")
    with SlotPool(1) as pool:
        waiting = pool.submit(until_there, gate)
        behind = pool.submit(abs, -1)
        pool.resize(2)
        assert behind.result(timeout=200) == 1
        Path(gate).touch()
        waiting.result()


def test_exceptions_cross_as_themselves(shared_pool: SlotPool) -> None:
    """Type, arguments, chain, and the frames of the child."""

    def fails() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("reason") from error

    with pytest.raises(ValueError, match="reason") as caught:
        shared_pool.submit(fails).result()
    assert isinstance(caught.value.__cause__, KeyError)
    assert any(entry.name == "fails" for entry in caught.traceback)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((print, threading.Lock()), "argument 0, of type _thread.lock"),
        ((threading.Lock,), "the result, of type _thread.lock"),
    ],
)
def test_what_cannot_be_pickled_fails_that_call_alone(
    shared_pool: SlotPool, call: tuple[Any, ...], named: str
) -> None:
    """The error names it, and the slot lives on."""
    before = children(shared_pool)
    with pytest.raises(SerializationError, match=named):
        shared_pool.submit(*call).result()
    assert children(shared_pool) == before


class Hostile:
    """Raises when it is pickled, or unpickled in one process."""

    def __init__(self, error: type[BaseException], refused: int = 0) -> None:
        self.error, self.refused, self.ballast = error, refused, list(range(30_000))

    def __getstate__(self) -> dict[str, Any]:
        if not self.refused:
            raise self.error("hostile")
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if os.getpid() == state["refused"]:
            raise state["error"]("hostile")
        vars(self).update(state)


@pytest.mark.parametrize(
    "error",
    [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, CancelledError, asyncio.CancelledError],
)
def test_whatever_pickling_raises_is_the_calls_error(
    shared_pool: SlotPool, error: type[BaseException]
) -> None:
    """Wherever that is: on the pool's loop, in a helper thread; of an argument and of a result."""
    before = children(shared_pool)
    for call in (
        (abs, Hostile(error)),
        (print, Hostile(error), "long" * 10_000),
        (Hostile, error, os.getpid()),
        (lambda *args: vars(Hostile(*args)).pop("ballast") and Hostile(*args), error, os.getpid()),
    ):
        with pytest.raises(SerializationError, match=r"Hostile.*hostile") as caught:
            shared_pool.submit(*call).result(timeout=200)
        assert type(caught.value.__cause__) is error
    assert children(shared_pool) == before


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_harms_nobody(
    shared_pool: SlotPool,
    error: type[BaseException],
    fifos: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told in the log, as `concurrent.futures` does with any exception of a callback."""
    called: queue.SimpleQueue[int] = queue.SimpleQueue()

    def callback(future: Future[int]) -> None:
        called.put(future.result())
        raise error("from a callback")

    # of a future that is done, a callback is called by who adds it
    shared_pool.submit(block, *fifos).add_done_callback(callback)
    Path(fifos[0]).read_text()
    Path(fifos[1]).write_text("")
    called.get(timeout=200)
    assert shared_pool.submit(abs, -1).result(timeout=200) == 1
    assert "from a callback" in caplog.text


def test_no_more_threads(shared_pool: SlotPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large arguments and results need one, and do without where the system refuses it."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    children(shared_pool)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(shared_pool._thread.helpers, "_threads", set())
    monkeypatch.setattr(shared_pool._thread.helpers, "_idle_semaphore", threading.Semaphore(0))
    large = list(range(100_000))
    assert shared_pool.submit(list, large).result(timeout=200) == large


def test_a_child_imports_no_dask() -> None:
    """A child of the bare pool is light: of our package too only what it needs."""
    with SlotPool(1) as pool:
        modules = pool.submit(eval, "sorted(__import__('sys').modules)").result()
    assert not {"dask", "distributed", "tornado", "psutil"} & set(modules)
    assert not any(name.startswith("skyward_dask.extension") for name in modules)


def test_a_task_can_ask_its_worker() -> None:
    """Requests of the task are served on the pool's loop, errors included."""

    def ask(fail: bool) -> Any:
        from tests.slots import backend

        return backend.link.call("add", 1, 2, fail=fail)

    def serve(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs["fail"]:
            raise LookupError(name)
        return sum(args), threading.current_thread().name

    with SlotPool(1, backend="tests.slots.backend:start") as pool:
        assert pool.run(Request("k", ask, (False,), serve=serve)) == (3, "skyward-pool")
        with pytest.raises(LookupError, match="add"):
            pool.run(Request("k", ask, (True,), serve=serve))
        with pytest.raises(RuntimeError, match="there is none here"):
            pool.run(Request("k", ask, (False,)))


@pytest.mark.parametrize(("how", "exitcode"), [("return", 0), ("raise", 1), ("exit", 5)])
def test_a_forked_process_ends_where_its_task_does(shared_pool: SlotPool, how: str, exitcode: int) -> None:
    """As a program at its last line, and the task's one answer is that of its own process."""

    def fork() -> int:
        if pid := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        match how:
            case "raise":
                raise ValueError
            case "exit":
                sys.exit(5)
        return -1

    for _ in range(2):
        assert shared_pool.submit(fork).result() == exitcode


class Argument(list[int]):
    """Can be referred to weakly."""


@pytest.mark.parametrize("limits", [{}, {"timeout": 3600}, {"memory_limit": 1 << 60}])
@pytest.mark.parametrize("function", [len, next])
def test_an_ended_call_lets_go_of_its_arguments(
    shared_pool: SlotPool, limits: dict[str, Any], function: Any
) -> None:
    """However it ended, and however much longer it could have taken."""
    gone = threading.Event()
    argument = Argument()
    weakref.finalize(argument, gone.set)
    with suppress(TypeError):  # a list is no iterator
        shared_pool.run(Request("key", function, (argument,), **limits))
    del argument
    assert gone.wait(timeout=200)


@pytest.mark.parametrize("function", [len, next])
def test_a_future_that_is_kept_holds_no_arguments(shared_pool: SlotPool, function: Any) -> None:
    """Whether it has a value or an error."""
    gone = threading.Event()
    argument = Argument()
    weakref.finalize(argument, gone.set)
    future = shared_pool.submit(function, argument)
    del argument
    wait([future])
    assert gone.wait(timeout=200)
    assert not shared_pool.stop(future)


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_may_take_several_at_a_time(shared_pool: SlotPool, chunksize: int) -> None:
    """The results are the same, and in order; a size that makes no sense is refused."""
    assert list(shared_pool.map(pow, range(10), range(9), chunksize=chunksize)) == [n**n for n in range(9)]
    with pytest.raises(ValueError, match="at least 1, not -1"):
        shared_pool.map(abs, [1], chunksize=-chunksize // chunksize)


# --- deaths -----------------------------------------------------------------------------------------------


@pytest.mark.crash
@pytest.mark.parametrize(
    ("how", "exitcode", "signame"),
    [
        ("exit", 3, None),
        ("sys.exit", 4, None),
        ("interrupt", 130, None),
        ("abort", None, "SIGABRT"),
        ("segfault", None, "SIGSEGV"),
        ("kill", None, "SIGKILL"),
        ("close", None, "SIGKILL"),
    ],
)
def test_a_crash_harms_its_call_alone(
    how: str, exitcode: int | None, signame: str | None, fifos: tuple[str, str]
) -> None:
    """The sibling runs on, and both slots serve again."""
    with SlotPool(2) as pool:
        sibling = pool.submit(block, *fifos)
        Path(fifos[0]).read_text()
        with pytest.raises(SlotCrashed) as caught:
            pool.submit(crash, how).result()
        Path(fifos[1]).write_text("")
        survivor = sibling.result()
        error = caught.value
        assert (error.exitcode, error.signal, error.key) == (exitcode, signame, "crash")
        assert error.pid != survivor and not psutil.pid_exists(error.pid)
        if how in ("segfault", "abort"):
            assert "in crash" in error.stack
        assert pool.submit(os.getpid).result() != error.pid


def test_the_stderr_of_a_crash_is_reported() -> None:
    """Its last lines, and only those of the task that crashed."""

    def last_words() -> None:
        print("I fall", file=sys.stderr)
        os._exit(1)

    with SlotPool(1) as pool:
        pool.submit(lambda: print("other", file=__import__("sys").stderr)).result()
        with pytest.raises(SlotCrashed) as caught:
            pool.submit(last_words).result()
    assert caught.value.stderr == "I fall"


@sized
@pytest.mark.crash
def test_blame_is_exact() -> None:
    """Children are killed at random: each crash names a pid that was killed, and no pid twice."""
    killed, calls, kills = set(), size(1000, 10_000), size(20, 150)
    with SlotPool(2) as pool:
        results: dict[int, Future[int]] = {n: pool.submit(abs, -n) for n in range(calls)}
        chance = random.Random(0)
        while any(not future.done() for future in results.values()) and len(killed) < kills:
            victim = chance.choice(pool.snapshots())
            if victim.pid is not None and victim.state in ("idle", "busy") and victim.pid not in killed:
                os.kill(victim.pid, signal.SIGKILL)
                killed.add(victim.pid)
            wait(list(results.values())[: chance.randrange(calls)], timeout=0.05)
        crashes = [f.exception() for f in results.values() if f.exception() is not None]
        assert all(isinstance(crash, SlotCrashed) for crash in crashes)
        pids = [crash.pid for crash in crashes if isinstance(crash, SlotCrashed)]
        assert len(set(pids)) == len(pids) and set(pids) <= killed
        assert all(f.result() == n for n, f in results.items() if f.exception() is None)


def note(directory: str, number: int, deadly: bool) -> int:
    with open(os.path.join(directory, str(number)), "a") as file:
        file.write("x")
    if deadly:
        os._exit(7)
    return number


@sized
@pytest.mark.crash
def test_a_death_among_many_calls_is_charged_to_its_own(tmp_path: Path) -> None:
    """Each call is run once, and those that wait behind a deadly one have their values."""
    calls = size(400, 4_000)
    with SlotPool(2) as pool:
        deadly = {number: number % 50 == 49 for number in range(calls)}
        futures = {n: pool.submit(note, str(tmp_path), n, is_deadly) for n, is_deadly in deadly.items()}
        for number, is_deadly in deadly.items():
            error = futures[number].exception()
            assert isinstance(error, SlotCrashed) and error.exitcode == 7 if is_deadly else error is None
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}
    assert len(list(tmp_path.iterdir())) == calls


@pytest.mark.crash
def test_a_child_that_dies_idle_costs_no_call() -> None:
    """Killed while nobody uses it, it is replaced, and the next call is not blamed for it."""
    with SlotPool(1) as pool:
        for _ in range(20):
            pid = pool.submit(os.getpid).result()
            os.kill(pid, signal.SIGKILL)
            assert pool.submit(os.getpid).result() != pid


def test_a_child_ends_as_a_program_does(tmp_path: Path) -> None:
    """What a task has registered for the end is called, when its threads have ended."""

    def register(said: str) -> None:
        go_on = threading.Event()
        atexit.register(lambda: Path(said).write_text(Path(said).read_text() + "the end"))
        threading.Thread(target=lambda: (go_on.wait(), Path(said).write_text("a thread, "))).start()
        go_on.set()

    said = tmp_path / "said"
    with SlotPool(1) as pool:
        pool.submit(register, str(said)).result()
    assert said.read_text() == "a thread, the end"


@pytest.mark.crash
def test_a_death_ends_the_process_group() -> None:
    """What a task started in its child's process group ends with it."""

    def start_and_die(name: str) -> None:
        process = subprocess.Popen(["sleep", "1000"])
        Path(name).write_text(str(process.pid))
        os._exit(1)

    with SlotPool(1) as pool:
        name = f"/tmp/skyward-test-{os.getpid()}"
        with pytest.raises(SlotCrashed):
            pool.submit(start_and_die, name).result()
        ends([int(Path(name).read_text())])
        Path(name).unlink()


# --- starting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"pre_import": ("no_such_module_of_ours",)},
        {"initializer": lambda: os.write(2, b"no_such_module_of_ours\n") and os._exit(1)},
    ],
)
def test_a_pool_that_cannot_start_says_why(bad: dict[str, Any]) -> None:
    """Every waiting call gets the error with the child's stderr; none waits for ever."""
    with SlotPool(2, **bad) as pool:
        with pytest.raises(SlotStartFailed, match="no_such_module_of_ours"):
            pool.wait_ready()
        for future in [pool.submit(abs, 1) for _ in range(5)]:
            with pytest.raises(SlotStartFailed, match="no_such_module_of_ours"):
                future.result()


def test_failed_starts_leave_nothing() -> None:
    """Nor do the calls that were waiting: a pool may fail for days."""
    gone = threading.Semaphore(0)
    with SlotPool(1, initializer=partial(divmod, 1, 0)) as pool:
        for _ in range(3):
            argument = Argument()
            weakref.finalize(argument, gone.release)
            with pytest.raises(SlotStartFailed, match="ZeroDivisionError"):
                pool.run(Request("k", len, (argument,)))
            del argument
            assert gone.acquire(timeout=200)


class CannotComeBack:
    def __setstate__(self, state: object) -> None:
        raise ZeroDivisionError

    def __getstate__(self) -> int:
        return 1


def test_a_result_that_cannot_be_unpickled_is_named(shared_pool: SlotPool) -> None:
    """With its class, and what went wrong as the cause."""
    with pytest.raises(SerializationError, match=r"result .* at .*test_pool\.CannotComeBack") as caught:
        shared_pool.submit(CannotComeBack).result()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_environment_that_no_process_can_have() -> None:
    """Fails the start, and nobody waits for ever."""
    with SlotPool(1, env={"A=B": "1"}) as pool, pytest.raises(SlotStartFailed, match="illegal environment"):
        pool.wait_ready()


def test_a_child_is_prepared() -> None:
    """Environment by slot, before the first import; modules; initializer; one BLAS thread; hash seed."""

    def facts() -> tuple[str, ...]:
        return (
            os.environ["DEVICE"],
            os.environ["OMP_NUM_THREADS"],
            os.environ["MKL_NUM_THREADS"],
            str("wave" in sys.modules),
            os.environ["MARK"],
            str(hash("a")),
        )

    def mark() -> None:
        os.environ["MARK"] = "set"

    env = {"DEVICE": "gpu-{slot}", "MKL_NUM_THREADS": lambda slot: str(slot * 0 + 2)}
    with SlotPool(2, env=env, pre_import=("wave",), initializer=mark) as pool:
        seen = {pool.submit(facts).result() for _ in range(50)} | set(pool.map(lambda _: facts(), range(50)))
    assert {fact[0] for fact in seen} <= {"gpu-0", "gpu-1"}
    assert len({fact[1:5] for fact in seen}) == 1 and ("1", "2", "True", "set") in {f[1:5] for f in seen}
    assert len({fact[5] for fact in seen}) == 1


def test_an_environment_by_function() -> None:
    """Of the slot's index: here two slots to each device."""
    with SlotPool(4, env={"DEVICE": lambda slot: str(slot // 2)}) as pool:
        pool.wait_ready()
        seen = {pool.submit(os.getenv, "DEVICE").result() for _ in range(100)}
        assert seen <= {"0", "1"}
        assert set(pool.map(lambda _: os.getenv("DEVICE"), range(100))) <= {"0", "1"}


@pytest.mark.parametrize(
    ("value", "reason"), [(lambda slot: 1 / slot, "ZeroDivision"), (lambda slot: slot, "must be a string")]
)
def test_an_environment_that_cannot_be_made(value: Any, reason: str) -> None:
    """Fails the start, and is named."""
    with (
        SlotPool(1, env={"DEVICE": value}) as pool,
        pytest.raises(SlotStartFailed, match=f"DEVICE.*{reason}"),
    ):
        pool.wait_ready()


@pytest.mark.parametrize("timer", ["alarm", "itimer", "watchdog", "handler"])
def test_what_a_call_has_set_going_does_not_end_the_next(tmp_path: Path, timer: str) -> None:
    """A timer that it left behind is stopped; SIGINT stops a call though an earlier one had ignored it."""

    def leave_behind() -> int:
        match timer:
            case "alarm":
                signal.alarm(100)
            case "itimer":
                signal.setitimer(signal.ITIMER_REAL, 100)
            case "watchdog":
                faulthandler.dump_traceback_later(1, exit=True)
            case _:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        return os.getpid()

    def see() -> tuple[int, bool, bool]:
        # a watchdog of one's own replaces one that is there, and the timer of its own has long passed by then
        time.sleep(1.5 if timer == "watchdog" else 0)
        is_ours = signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.SIG_DFL)
        return os.getpid(), signal.getitimer(signal.ITIMER_REAL) == (0, 0), is_ours

    with SlotPool(1) as pool:
        pid = pool.submit(leave_behind).result()
        assert pool.submit(see).result() == (pid, True, True)


def test_a_child_that_is_not_well_is_replaced(tmp_path: Path) -> None:
    """After a call that raised, and no other; an event says so, and no call hears of it."""
    ill = tmp_path / "ill"
    events: list[str] = []

    def check() -> bool | None:
        if not ill.exists():
            return None
        if ill.read_text():
            raise RuntimeError("device lost")
        return False

    def fail() -> None:
        raise ArithmeticError

    with SlotPool(1, health_check=check, on_event=lambda event, *_: events.append(event)) as pool:
        pid = pool.submit(os.getpid).result()
        for text in ("", "raise"):
            with pytest.raises(ArithmeticError):
                pool.submit(fail).result()
            assert pool.submit(os.getpid).result() == pid
            ill.write_text(text)
            assert pool.submit(os.getpid).result() == pid
            with pytest.raises(ArithmeticError):
                pool.submit(fail).result()
            before, pid = pid, pool.submit(os.getpid).result()
            assert pid != before
            ill.unlink()
    assert [event for event in events if event != "start"] == ["unhealthy", "replace"] * 2


def hang() -> None:
    while True:
        pass


def grow() -> None:
    _ = b"x" * (200 << 20)
    hang()


@pytest.mark.crash
@pytest.mark.parametrize(
    ("check", "limits"), [(os.abort, {}), (hang, {"timeout": 1.0}), (grow, {"memory_limit": 150 << 20})]
)
def test_a_health_check_that_ends_its_process(check: Callable[[], object], limits: dict[str, Any]) -> None:
    """The caller gets the call's own error, and the next call another process."""

    def fail() -> None:
        raise ArithmeticError("its own")

    with SlotPool(1, health_check=check) as pool:
        pid = pool.submit(os.getpid).result()
        with pytest.raises(ArithmeticError, match="its own"):
            pool.run(Request("failing", fail, **limits))
        assert pool.submit(os.getpid).result() != pid


def test_a_lazy_pool_starts_children_when_wanted() -> None:
    """No child before the first call, and one for it."""
    with SlotPool(3, eager=False) as pool:
        assert {slot.state for slot in pool.snapshots()} == {"vacant"}
        pool.submit(abs, 1).result()
        assert sorted(slot.state for slot in pool.snapshots()) == ["idle", "vacant", "vacant"]


# --- output -----------------------------------------------------------------------------------------------


def test_lines_carry_their_call() -> None:
    """Prints, writes to the descriptors and to stderr, each with the key of the task that ran."""
    lines: list[tuple[str, str, str]] = []
    with SlotPool(1, on_output=lambda *line: lines.append(line)) as pool:
        for n in range(20):
            pool.run(Request(f"task-{n}", print, (f"line {n}",)))
            pool.run(Request(f"raw-{n}", os.write, (2, b"no end")))
    expected = [
        line
        for n in range(20)
        for line in ((f"task-{n}", "stdout", f"line {n}"), (f"raw-{n}", "stderr", "no end"))
    ]
    assert lines == expected


def test_text_without_line_ends_is_seen_while_its_call_runs(fifos: tuple[str, str]) -> None:
    """As it comes, and as lines soon; of a progress bar the last state; no character is ever cut in two."""
    texts: list[str] = []
    lines: queue.Queue[str] = queue.Queue()

    def draw(started: str, release: str) -> None:
        print("a dot.", end="")
        Path(release).read_text()
        for percent in range(10):
            sys.stderr.write(f"\r{percent} %")
        Path(release).read_text()
        print("ä" * 200_000)

    with SlotPool(
        1,
        on_output=lambda key, stream, line: lines.put(line),
        on_text=lambda stream, text: texts.append(text),
    ) as pool:
        future = pool.submit(draw, *fifos)
        assert lines.get(timeout=200) == "a dot."
        Path(fifos[1]).write_text("")
        while (progress := lines.get(timeout=200)) != "9 %":
            assert progress.endswith(" %")
        Path(fifos[1]).write_text("")
        future.result()
    assert "".join(iter(lambda: lines.get() if lines.qsize() else "", "")) == "ä" * 200_000
    shown = "".join(texts)
    assert shown.startswith("a dot.") and "\r9 %" in shown and shown.count("ä") == 200_000


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_stands_for_stdout_costs_no_result(error: type[BaseException]) -> None:
    """A task may have put something in its place whose flush raises anything."""

    class Stream:
        def flush(self) -> None:
            raise error

    def replace() -> str:
        sys.stdout = sys.stderr = Stream()  # type: ignore[assignment]
        return "done"

    with SlotPool(1) as pool:
        before = pool.submit(os.getpid).result()
        assert pool.submit(replace).result() == "done"
        assert pool.submit(os.getpid).result() == before


def test_a_flood_of_output_blocks_nobody() -> None:
    """A task may print far more than a pipe holds: others have their turn after some lines; all are seen."""
    count = 0
    turns: list[int] = []

    def sink(key: str, stream: str, line: str) -> None:
        nonlocal count
        count += 1
        if count == 1:
            asyncio.get_running_loop().call_soon(lambda: turns.append(count))
        end = time.perf_counter() + 5e-6
        while time.perf_counter() < end:
            pass

    with SlotPool(1, on_output=sink) as pool:
        pool.submit(lambda: print("\n" * 69_999)).result()
    assert count == 70_000 and turns[0] < 1000


def test_many_slots_need_no_threads() -> None:
    """64 of them start, run, become two, and end, as two do."""
    started = threading.Semaphore(0)
    before = psutil.Process().num_threads()
    with SlotPool(64, on_event=lambda event, *_: event == "start" and started.release()) as pool:
        for _ in range(64):
            assert started.acquire(timeout=200)
        assert list(pool.map(abs, range(-200, 0))) == list(range(200, 0, -1))
        assert {slot.state for slot in pool.snapshots()} == {"idle"}
        assert psutil.Process().num_threads() <= before + 1 + HELPERS
        pool.resize(2)
        while len(pool.snapshots()) > 2:
            time.sleep(0.01)
        assert pool.submit(pow, 2, 3).result() == 8


# --- ending -----------------------------------------------------------------------------------------------


def test_shutdown_waits_for_what_runs_and_refuses_more() -> None:
    """As every executor's."""
    pool = SlotPool(2)
    futures = [pool.submit(pow, 2, n) for n in range(20)]
    pool.shutdown()
    assert [f.result() for f in futures] == [2**n for n in range(20)]
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(abs, 1)
    pool.shutdown()


def test_shutdown_without_waiting_finishes_what_was_taken(fifos: tuple[str, str]) -> None:
    """The last call closes the door behind it."""
    pool = SlotPool(1)
    future = pool.submit(block, *fifos)
    later = pool.submit(abs, -1)
    Path(fifos[0]).read_text()
    pool.shutdown(wait=False)
    Path(fifos[1]).write_text("")
    assert future.result() and later.result() == 1
    pool.shutdown(wait=True)


def test_shutdown_cancels_what_has_not_begun(fifos: tuple[str, str]) -> None:
    """``cancel_futures`` leaves what runs alone."""
    pool = SlotPool(1)
    running = pool.submit(block, *fifos)
    Path(fifos[0]).read_text()
    waiting = [pool.submit(abs, n) for n in range(5)]
    pool.shutdown(wait=False, cancel_futures=True)
    Path(fifos[1]).write_text("")
    assert running.result()
    assert all(f.cancelled() for f in waiting)
    pool.shutdown()


def test_cancelled_calls_may_call_back_into_the_pool(fifos: tuple[str, str]) -> None:
    """No lock is held meanwhile."""
    pool = SlotPool(1)
    running = pool.submit(block, *fifos)
    Path(fifos[0]).read_text()
    waiting = [pool.submit(abs, n) for n in range(5)]
    waiting[0].add_done_callback(lambda _: pool.shutdown(wait=False, cancel_futures=True))
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(f.cancelled() for f in waiting)
    Path(fifos[1]).write_text("")
    assert running.result()
    pool.shutdown()


def test_end_kills_what_runs(fifos: tuple[str, str]) -> None:
    """A call that would run for ever ends with its pool, and its caller is told."""
    pool = SlotPool(1)
    future = pool.submit(block, *fifos)
    Path(fifos[0]).read_text()
    pool.end()
    with pytest.raises(CancelledError):
        future.result()
    pool.shutdown()


def ends(pids: list[int]) -> None:
    """Wait for processes that others reap."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(timeout=200)


@pytest.mark.parametrize("function", [pow, divmod])
def test_a_pool_that_nobody_has_any_more_ends(function: Any) -> None:
    """When its calls are done, though their futures are kept, and some of them have failed."""
    pool = SlotPool(2)
    template = pool.submit(os.getppid).result()
    futures = [pool.submit(function, 2, 0) for _ in range(20)]
    pids = [slot.pid for slot in pool.snapshots() if slot.pid]
    held = weakref.ref(pool)
    del pool
    assert {future.exception() is None for future in futures} == {function is pow}
    ends([template, *pids])
    assert held() is None


@pytest.mark.parametrize("shutdown", ["", "pool.shutdown(wait=False)"])
def test_calls_are_finished_before_the_interpreter_exits(shutdown: str, tmp_path: Path) -> None:
    """As with every executor; later ones are refused."""
    program = f"""
import atexit, os, time
from pathlib import Path
from skyward_dask.slots.executor import SlotPool

def late(pool=[]):
    try:
        pool[0].submit(pow, 2, 3)
    except RuntimeError as error:
        print(error)

def work(number):
    time.sleep(0.1)
    Path({str(tmp_path)!r}, str(number)).touch()

pool = SlotPool(1)
for number in range(3):
    pool.submit(work, number)
atexit.register(late, [pool])
{shutdown}
"""
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert len(list(tmp_path.iterdir())) == 3
    assert "shutdown" in ended.stdout or "shut down" in ended.stdout


@pytest.mark.crash
@pytest.mark.parametrize("busy", [False, True])
def test_children_end_with_their_worker(busy: bool, tmp_path: Path) -> None:
    """However it dies, and though a child holds its GIL in C code."""
    program = f"""
import os, sys
from skyward_dask.slots.executor import SlotPool
pool = SlotPool(2)
pids = [pool.submit(os.getpid).result() for _ in range(10)]
if {busy}:
    pool.submit(pow, 7, 10**9)
print(*[slot.pid for slot in pool.snapshots()], flush=True)
sys.stdin.read()
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin and worker.stdout
    with worker:
        children = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
        worker.kill()
        _, alive = psutil.wait_procs(children, timeout=200)
    assert len(children) == 2 and not [child for child in alive if child.is_running()]


def test_scripts_find_the_pool_where_it_was() -> None:
    assert pool_module.SlotPool is SlotPool  # type: ignore[attr-defined]  # it is looked up
    assert not hasattr(pool_module, "Pools")


def test_children_that_wait_for_a_template_start_though_it_is_replaced() -> None:
    """Again and again, before it was ready: the slot has a successor by then, and starts no other child."""
    with SlotPool(1) as pool:
        call = pool.submit(abs, -1)
        for _ in range(5):
            pool.renew(b"")
        assert call.result(timeout=20) == 1
