"""A pool walked at random: calls, stops, kills of children and of the template, in any order."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyward_dask.errors import SlotCrashed
from skyward_dask.slots.executor import SlotPool
from tests.sizes import size, sized

pytestmark = [pytest.mark.crash, pytest.mark.platform]

STEPS = ("quick", "long", "fails", "exits", "stop", "kill", "kill template", "look")


def _long(number: int) -> int:
    time.sleep(0.05)
    return number


def _fails(number: int) -> int:
    raise LookupError(number)


def _exits(number: int) -> int:
    os._exit(7)


@dataclass
class Walk:
    """A pool, what was asked of it, and what was done to it."""

    pool: SlotPool
    calls: list[tuple[str, Future[Any]]] = field(default_factory=list)
    stopped: set[int] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    resolved: Counter[int] = field(default_factory=Counter)

    def step(self, name: str, choice: int) -> None:
        match name:
            case "quick" | "long" | "fails" | "exits":
                self._call(name)
            case "stop" if self.calls:
                number = choice % len(self.calls)
                if self.pool.stop(self.calls[number][1]):
                    self.stopped.add(number)
            case "kill" | "kill template":
                self._kill(self.pool.snapshots()[choice % 2].pid, template=name == "kill template")
            case _:
                self.pool.snapshots()

    def _call(self, name: str) -> None:
        number = len(self.calls)
        function = {"quick": abs, "long": _long, "fails": _fails, "exits": _exits}[name]
        future: Future[Any] = self.pool.submit(function, number)
        future.add_done_callback(lambda _: self.resolved.update([number]))
        self.calls.append((name, future))

    def _kill(self, pid: int | None, template: bool) -> None:
        try:
            victim = psutil.Process(pid) if pid else None
            if victim is not None and template:
                victim = victim.parent()
            # an orphan's parent is somebody else's process
            if victim is not None and os.getpid() in {parent.pid for parent in victim.parents()}:
                victim.send_signal(signal.SIGKILL)
                self.killed.add(victim.pid)
        except psutil.Error:
            pass

    def judge(self) -> None:
        """Each call has ended once, with its value or with what was done to it."""
        for number, (name, future) in enumerate(self.calls):
            error = None if future.cancelled() else future.exception()
            if number in self.stopped:
                assert future.cancelled() or isinstance(error, CancelledError)
            elif isinstance(error, SlotCrashed):
                assert error.pid in self.killed or (name == "exits" and error.exitcode == 7)
            elif name == "fails":
                assert isinstance(error, LookupError) and error.args == (number,)
            else:
                assert name in ("quick", "long") and future.result() == number
        assert self.resolved == Counter(range(len(self.calls)))


@sized
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 100)), max_size=40),
    st.sampled_from([None, 1, 3]),
)
@settings(max_examples=size(12, 300))
def test_each_call_ends_once_whatever_happens(steps: list[tuple[str, int]], max_tasks: int | None) -> None:
    """With its own value, or with what was done to it; then the pool works as ever."""
    with SlotPool(2, max_tasks=max_tasks, grace=0.1) as pool:
        walk = Walk(pool)
        for name, choice in steps:
            walk.step(name, choice)
        for _, future in walk.calls:
            future.cancelled() or future.exception(timeout=200)
        assert [pool.submit(abs, -n).result(timeout=200) for n in range(3)] == [0, 1, 2]
    walk.judge()
