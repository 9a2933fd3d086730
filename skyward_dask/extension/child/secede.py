"""The executor that Dask's `secede` and `rejoin` find in a child: they act on the slot's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from skyward_dask.slots.child.link import Link


class _Members(set[threading.Thread]):
    """The one thread of the child that has a slot, while it has it."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def remove(self, thread: threading.Thread) -> None:
        """Secede; raises a KeyError if the thread has no slot."""
        super().remove(thread)
        self._link.call("secede")


class ChildExecutor:
    """The part of `distributed.threadpoolexecutor.ThreadPoolExecutor` that `secede` and `rejoin` use.

    ``secede()`` removes its thread from `_threads`. ``rejoin()`` puts its thread and an event on
    `_rejoin_list`, submits a call that does nothing, and waits for the event.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._threads = _Members(link)
        self._rejoin_lock = threading.Lock()
        self._rejoin_list: list[tuple[threading.Thread, threading.Event]] = []

    def enter(self) -> None:
        """The main thread begins a run, in its slot."""
        self._threads.add(threading.current_thread())

    def _adjust_thread_count(self) -> None:
        """Do nothing: the worker has started another thread, if it needs one."""

    def submit(self, function: Callable[[], Any]) -> None:
        """Rejoin, on behalf of a thread that wants to."""
        with self._rejoin_lock:
            thread, event = self._rejoin_list.pop()
        self._link.call("rejoin")
        self._threads.add(thread)
        event.set()
