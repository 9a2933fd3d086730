"""Threads that make calls for those who don't want to wait: one for each slot at the most."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class Callers(ThreadPoolExecutor):
    """A thread pool whose number of threads can change.

    Parameters
    ----------
    count : int
        Threads at the most; they are started as they are needed.

    Notes
    -----
    As every thread pool's, its threads finish what was submitted before the interpreter exits.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, thread_name_prefix="skyward-pool")

    def resize(self, count: int) -> None:
        """Have so many threads at the most; a thread too many waits for a slot."""
        # the names are private, and the same from Python 3.9 to 3.14
        with self._shutdown_lock:
            self._max_workers = count
            for _ in range(self._work_queue.qsize()):
                self._adjust_thread_count()
