"""Threads that make calls for those who don't want to wait: the pool's own, as many as it has slots."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from skyward_dask.slots.runs import Run

_Item = tuple["Future[Any]", Run]


class Callers:
    """A queue of calls and its threads, which are started as they are needed.

    Parameters
    ----------
    count : int
        Threads at the most.
    call : callable
        Makes one call, and returns its value or raises what it raised.
    done : callable
        Called after each call, also one that was cancelled before it began.

    Notes
    -----
    Thread-safe. `concurrent.futures.ThreadPoolExecutor` would do, at half the throughput: it counts its idle
    threads with a semaphore, and calls each future's callbacks to tell that a call is done.
    """

    def __init__(self, count: int, call: Callable[[Run], Any], done: Callable[[], None]) -> None:
        self._call = call
        self._done = done
        self._count = count
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._changing = threading.Lock()
        self._ending = False

    def submit(self, future: Future[Any], run: Run) -> None:
        """Queue a call, for a future."""
        self._queue.put((future, run))
        if len(self._threads) < self._count:
            self._start()

    def _start(self) -> None:
        with self._changing:
            if len(self._threads) < self._count:
                name = f"skyward-pool-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
                if self._ending:  # the call came before the end, its thread after it
                    self._queue.put(None)

    def _work(self) -> None:
        for item in iter(self._queue.get, None):
            self._make(*item)
            del item  # its arguments and its value are others' from now on

    def _make(self, future: Future[Any], run: Run) -> None:
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(self._call(run))
        except BaseException as error:  # whoever waits for the future sees it
            future.set_exception(error)
            del future  # the error's traceback refers to this frame
        finally:
            self._done()

    def cancel(self) -> None:
        """Cancel the calls that haven't begun."""
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                item[0].cancel()
                item[0].set_running_or_notify_cancel()
                self._done()

    def end(self) -> None:
        """Have the threads end when the queue is empty."""
        with self._changing:
            self._ending = True
            for _ in self._threads:
                self._queue.put(None)

    def join(self) -> None:
        """Wait until they have ended."""
        for thread in self._threads:
            thread.join()
