"""Calls that lie ready for a busy child: each is run once, by whoever gets to it first."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from skyward_dask.errors import SlotCrashed
from skyward_dask.slots.ahead import Ahead
from skyward_dask.slots.bursts import Burst
from skyward_dask.slots.callers import MOST, Callers
from skyward_dask.slots.pool import SlotPool
from skyward_dask.slots.runs import Request, Run
from tests.sizes import size

#: Calls of which a good part lies ready behind others.
_MANY = size(400, 4_000)


def test_a_call_is_whose_who_takes_it() -> None:
    """Either end's reader gets each call, in order, and nobody else does."""
    ours = Ahead.pair()
    theirs = Ahead(ours.reader.dup())
    for number in (1, 2, 3):
        assert ours.lay(number, b"call %d" % number)
    assert [theirs.take(), ours.take(), theirs.take(), ours.take()] == [
        (1, b"call 1"),
        (2, b"call 2"),
        (3, b"call 3"),
        None,
    ]
    theirs.close()
    ours.close()


def submit_all(callers: Callers, keys: list[str]) -> list[Future[None]]:
    futures: list[Future[None]] = [Future() for _ in keys]
    for key, future in zip(keys, futures, strict=True):
        callers.submit(future, Run(Request(key, abs)))
    return futures


def end(callers: Callers) -> None:
    callers.end()
    callers.join()


def settle_all(burst: Burst) -> None:
    for call in (burst.first, *burst.rest):
        call.settle(lambda: None)


def test_quick_calls_come_in_bursts_and_leave_one_for_each_thread() -> None:
    """Slow ones, or few, come one by one."""
    sizes: list[int] = []
    gate = threading.Event()
    now = [0.0]

    def make(burst: Burst) -> None:
        gate.wait()
        now[0] += 1.0 if burst.first.run.request.key == "slow" else 0.0001
        sizes.append(1 + len(burst.rest))
        settle_all(burst)

    callers = Callers(1, MOST, make, lambda: None, lambda: now[0])
    futures = submit_all(callers, ["slow", *["quick"] * (2 * MOST)])
    gate.set()
    wait(futures)
    end(callers)
    assert sizes == [1, 1, MOST, MOST - 2, 1]


def test_who_became_idle_before_calls_were_laid_takes_them_back() -> None:
    """They don't lie behind a long call until somebody submits another."""
    gate, blocked = threading.Event(), threading.Event()
    taken_back: list[Future[None]] = []

    def make(burst: Burst) -> None:
        gate.wait()
        if not burst.rest or blocked.is_set():
            settle_all(burst)
            return
        blocked.set()
        taken_back[:] = [call.future for call in burst.rest]
        while not callers._idle:
            time.sleep(0.001)
        with closing(Ahead.pair()) as ahead:
            burst.lay(ahead, count(1).__next__, None)
            assert not wait(taken_back, timeout=60).not_done
            burst.close()
        burst.first.settle(lambda: None)

    callers = Callers(2, MOST, make, lambda: None, lambda: 0.0)
    futures = submit_all(callers, ["quick"] * (3 * MOST))
    gate.set()
    wait(futures)
    end(callers)
    assert len(taken_back) > 1
    assert [future.result() for future in futures] == [None] * len(futures)


def test_cancelled_calls_may_call_back_into_the_pool() -> None:
    """No lock is held meanwhile."""
    gate = threading.Event()

    def make(burst: Burst) -> None:
        gate.wait()
        settle_all(burst)

    done: list[bool] = []
    callers = Callers(1, 1, make, lambda: done.append(True))
    first, *others = submit_all(callers, ["quick"] * 5)
    while not first.running():
        time.sleep(0.001)
    others[0].add_done_callback(lambda _: callers.cancel())
    callers.cancel()
    assert all(future.cancelled() for future in others)
    assert not wait(others, timeout=0).not_done
    assert len(done) == 4
    gate.set()
    end(callers)
    assert first.result() is None


def until_there(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.001)


def test_nothing_waits_behind_a_long_call(tmp_path: Path) -> None:
    """All other calls end, wherever the long one stands, though some lay ready for its child."""
    with SlotPool(2) as pool:
        for position in random.Random(3).sample(range(50, _MANY - 50), 5):
            gate = str(tmp_path / str(position))
            long = None
            others = []
            for number in range(_MANY):
                if number == position:
                    long = pool.submit(until_there, gate)
                others.append(pool.submit(abs, -number))
            assert not wait(others, timeout=60).not_done
            assert long is not None and not long.done()
            Path(gate).touch()
            assert long.result() is None
            assert [future.result() for future in others] == list(range(_MANY))


def note(directory: str, number: int, deadly: bool) -> int:
    with open(os.path.join(directory, str(number)), "a") as file:
        file.write("x")
    if deadly:
        os._exit(7)
    return number


@pytest.mark.crash
def test_a_death_in_a_burst_is_charged_to_its_own_call(tmp_path: Path) -> None:
    """The calls behind it are run, once, elsewhere."""
    with SlotPool(2) as pool:
        calls = [(number, number % 50 == 49) for number in range(_MANY)]
        futures = {number: pool.submit(note, str(tmp_path), number, deadly) for number, deadly in calls}
        for number, deadly in calls:
            error = futures[number].exception()
            assert isinstance(error, SlotCrashed) and error.exitcode == 7 if deadly else error is None
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}
    assert len(list(tmp_path.iterdir())) == _MANY


def spin(number: int) -> int:
    end = time.perf_counter() + 0.0003
    while time.perf_counter() < end:
        pass
    return number


@pytest.mark.crash
def test_a_stop_in_a_burst_hits_its_own_call_only() -> None:
    """Each other call has its value, and what was stopped a CancelledError."""
    chance = random.Random(5)
    with SlotPool(2) as pool:
        futures = [pool.submit(spin, number) for number in range(_MANY)]
        stopped = set()
        for number in sorted(chance.sample(range(_MANY), _MANY // 10)):
            if number >= 2:
                wait(futures[number - 2 : number - 1])  # so that it runs, or lies ready, or is about to
            if pool.stop(futures[number]):
                stopped.add(number)
        for number, future in enumerate(futures):
            if number in stopped:
                with pytest.raises(CancelledError):
                    future.result(timeout=60)
            else:
                assert future.result(timeout=60) == number
        assert pool.submit(abs, -1).result() == 1


def test_a_pool_that_grows_runs_more_at_once(tmp_path: Path) -> None:
    """So many calls that wait for each other as it has slots now."""
    gate = str(tmp_path / "gate")
    with SlotPool(1) as pool:
        waiting = pool.submit(until_there, gate)
        behind = pool.submit(abs, -1)
        pool.resize(2)
        assert behind.result(timeout=60) == 1
        Path(gate).touch()
        waiting.result()
