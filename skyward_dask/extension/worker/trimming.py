"""Give the memory of dropped results back to the system: Dask's "unmanaged memory".

The C library keeps what is freed between things that live, small arrays above all. `malloc_trim` gives whole
free pages back. It takes up to half a second, of a helper thread, once much has been released and nothing
more is.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import Executor

from skyward_dask.slots.aside import aside

#: Released bytes from which it is worth the time: a part of what an idle worker has.
_MUCH = 32 << 20
#: Seconds without a release after which a worker is considered idle; longer than the pause between two tasks.
_IDLE = 0.5


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library: musl, macOS
        return None
    return trim


class Trimming:
    """Of one worker's process. For the worker's loop.

    Parameters
    ----------
    helpers : concurrent.futures.Executor
    """

    def __init__(self, helpers: Executor) -> None:
        self._helpers, self._trim = helpers, _malloc_trim()
        self._held = self._released = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._trimming: asyncio.Task[None] | None = None

    def has(self, nbytes: int) -> None:
        """The worker has let go of a value, and holds so many bytes now."""
        loop = asyncio.get_running_loop()
        self._released += max(0, self._held - nbytes)
        self._held, self._last = nbytes, loop.time()
        if self._trim is not None and self._timer is None and self._released >= _MUCH:
            self._timer = loop.call_later(_IDLE, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if (left := self._last + _IDLE - loop.time()) > 0:
            self._timer = loop.call_later(left, self._look)
            return
        self._timer, self._released = None, 0
        self._trimming = loop.create_task(self._call())

    async def _call(self) -> None:
        assert self._trim is not None
        await aside(self._helpers, self._trim, 0)

    async def close(self) -> None:
        """Trim nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._trimming is not None:
            await self._trimming
