"""Threads that make calls for those who don't want to wait: the pool's own, as many as it has slots."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from skyward_dask.slots.bursts import Burst, Call
from skyward_dask.slots.runs import Run

#: Calls in one burst at the most: with eight, waking up costs little in each; more gain nothing.
MOST = 8
#: Seconds that a call takes at the most, on the average, for others to be laid ready behind the next: what
#: a wake-up costs, many times over.
_QUICK = 0.001


class Callers:
    """A queue of calls and its threads, which are started as they are needed.

    A thread takes a burst of calls while all are busy and the last were quick; else one, so that a call that
    could be run at once never waits for another.

    Parameters
    ----------
    count : int
        Threads at the most.
    most : int
        Calls in a burst at the most.
    make : callable
        Carries out a burst: each call is settled or put back.
    done : callable
        Called for each call that was cancelled before it began.
    clock : callable
        Seconds.

    Notes
    -----
    Thread-safe. `concurrent.futures.ThreadPoolExecutor` would do, at half the throughput even without bursts:
    it counts its idle threads with a semaphore, and calls each future's callbacks to tell that a call is
    done.
    """

    def __init__(
        self,
        count: int,
        most: int,
        make: Callable[[Burst], None],
        done: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._done, self._clock = make, done, clock
        self._count, self._most = count, most
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[Call] = deque()
        self._bursts: set[Burst] = set()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._ending = False

    def resize(self, count: int) -> None:
        """Have so many threads at the most; a thread too many waits for a slot."""
        with self._changed:
            self._count = count
            for _ in range(min(len(self._queue), count - len(self._threads))):
                self._start()

    def submit(self, future: Future[Any], run: Run) -> None:
        """Queue a call, for a future."""
        with self._changed:
            self._queue.append(Call(future, run))
            if self._idle:
                self._changed.notify()
            if self._idle < len(self._queue) and len(self._threads) < self._count:
                self._start()

    def _start(self) -> None:
        name = f"skyward-pool-{len(self._threads)}"
        self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
        self._threads[-1].start()

    def _work(self) -> None:
        most = 1
        while calls := self._next(most):
            began = self._clock()
            self._make_all([call for call in calls if self._begins(call)])
            most = self._most if self._clock() - began < _QUICK * len(calls) else 1
            del calls  # their arguments and their values are others' from now on

    def _begins(self, call: Call) -> bool:
        if not (begins := call.begin()):
            self._done()
        return begins

    def _make_all(self, calls: list[Call]) -> None:
        if not calls:
            return
        burst = Burst(calls, self._put_back, self._wake)
        with self._changed:
            self._bursts.add(burst)
        try:
            self._make(burst)
        finally:
            with self._changed:
                self._bursts.discard(burst)

    def _next(self, most: int) -> list[Call]:
        """What a thread is to do next; empty at the end."""
        with self._changed:
            while not self._queue:
                if (call := self._take_back()) is not None:
                    return [call]
                if self._ending:
                    return []
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            calls = [self._queue.popleft()]
            if not self._idle and len(self._threads) >= self._count:
                # one is left for each thread, which then sees to it that nothing lies behind a long call
                more = min(most - 1, len(self._queue) - self._count)
                calls += [self._queue.popleft() for _ in range(more)]
            return calls

    def _take_back(self) -> Call | None:
        for burst in self._bursts:
            if (call := burst.take_back()) is not None:
                return call
        return None

    def _put_back(self, calls: list[Call]) -> None:
        if calls:
            with self._changed:
                self._queue.extendleft(reversed(calls))
                self._changed.notify(len(calls))

    def _wake(self) -> None:
        """Have those who have become idle meanwhile look at what lies behind a call."""
        with self._changed:
            self._changed.notify_all()

    def cancel(self) -> None:
        """Cancel the calls that haven't begun."""
        with self._changed:
            calls = list(self._queue)
        # without the lock: whoever wants to know is called back
        cancelled = {call for call in calls if call.future.cancel()}
        with self._changed:
            left = [call for call in self._queue if call in cancelled]
            self._queue = deque(call for call in self._queue if call not in cancelled)
        for call in left:
            self._begins(call)

    def end(self) -> None:
        """Have the threads end when the queue is empty."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until they have ended."""
        for thread in self._threads:
            thread.join()
