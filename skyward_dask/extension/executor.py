"""The executor that Dask's worker takes for its own, with a number of threads that can change."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from distributed.threadpoolexecutor import ThreadPoolExecutor


class SlotThreadPoolExecutor(ThreadPoolExecutor):
    """The threads of a node's slots.

    `Worker.execute` gives a task its key, ``get_worker()``, secede, spans and metrics only if
    ``"ThreadPoolExecutor"`` is in the qualified name of its executor's class, and `Worker.close` goes by
    isinstance: this class meets both, on purpose.

    Notes
    -----
    Everything here but `submit` and what it leads to is called on the worker's loop.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(slots, thread_name_prefix="skyward-slot")  # type: ignore[no-untyped-call]
        self._open = 0
        self._retired = False

    def resize(self, slots: int) -> None:
        """Have so many threads at the most; surplus ones stay, and wait."""
        self._max_workers = slots

    def submit(  # type: ignore[override]  # as Dask types it
        self, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        with self._shutdown_lock:
            self._open += 1
        future: Future[Any] = super().submit(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        with self._shutdown_lock:
            self._open -= 1
            self._end_if_over()

    def retire(self) -> None:
        """End when the last run has ended; until then seceded tasks can rejoin."""
        with self._shutdown_lock:
            self._retired = True
            self._end_if_over()

    def _end_if_over(self) -> None:
        # not by `shutdown`: that takes the lock which `Worker.close` holds while it waits for our threads
        if self._retired and not self._open:
            self._shutdown = True
            self._work_queue.put(None)
