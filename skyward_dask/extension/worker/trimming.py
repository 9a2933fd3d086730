"""Give the memory of dropped results back to the system: Dask's "unmanaged memory".

The C library keeps freed memory that lies between live objects, above all the memory of small arrays.
`malloc_trim` gives whole free pages back. It takes up to half a second, so a helper thread calls it, once
much has been released and nothing more is being released.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import Executor

from skyward_dask.slots.aside import aside

#: Released bytes from which trimming is worth the time: a fraction of the memory of an idle worker.
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
    """Trims the memory of one worker's process. Used on the worker's loop only."""

    def __init__(self, helpers: Executor) -> None:
        self._helpers, self._trim = helpers, _malloc_trim()
        self._held = self._released = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._trimming: asyncio.Task[None] | None = None

    def has(self, nbytes: int) -> None:
        """The worker has released a value, and now holds `nbytes` bytes."""
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
        """Stop trimming, and wait for a trim that is under way."""
        if self._timer is not None:
            self._timer.cancel()
        if self._trimming is not None:
            await self._trimming
