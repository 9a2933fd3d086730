"""A thread that runs a pool's loop, for callers that have no loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar, cast

from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.pool import Pool

T = TypeVar("T")

#: Seconds between two checks whether the loop's thread is still alive: a call that it gets in its last moment
#: is never answered.
_LOOK = 1.0


class PoolThread:
    """A pool, and the thread that runs its loop. Doesn't refer to the `SlotPool`, which may be dropped."""

    def __init__(
        self, make: Callable[[], Pool], helpers: ThreadPoolExecutor, segments: Segments | None
    ) -> None:
        self.helpers, self._segments = helpers, segments
        made: Future[Pool] = Future()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._live(make, made),), name="skyward-pool", daemon=True
        )
        self._thread.start()
        self.pool = made.result()

    async def _live(self, make: Callable[[], Pool], made: Future[Pool]) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            pool = make()
        except BaseException as error:  # whoever makes the pool sees it
            made.set_exception(error)
            return
        made.set_result(pool)
        await pool.wait_closed()
        self.helpers.shutdown()
        if self._segments is not None:
            self._segments.close()

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have a function called on the loop; if the loop has ended, there is nothing left to do."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def call(self, function: Callable[..., T], *args: object, default: T | None = None) -> T:
        """Call a function on the loop, and wait for its result; the default if the loop has ended."""
        if threading.current_thread() is self._thread:
            return function(*args)
        outcome: Future[T] = Future()
        self.post(_call, outcome, function, args)
        return self._result(outcome, default)

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _result(self, outcome: Future[T], default: T | None) -> T:
        while not wait([outcome], timeout=_LOOK).done:
            if not self._thread.is_alive():
                return cast(T, default)
        return outcome.result()

    def join(self) -> None:
        """Wait until the pool has ended."""
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _call(outcome: Future[T], function: Callable[..., T], args: tuple[Any, ...]) -> None:
    try:
        outcome.set_result(function(*args))
    except BaseException as error:  # whoever waits for the outcome sees it
        outcome.set_exception(error)
