"""The one thread that starts children, hears that they are ready, reads their output and sees them die.

It lives as long as the pool: PDEATHSIG is bound to the thread that forks, and would kill the children of
a thread that ends.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from skyward_dask.slots.process import ChildProcess


class Supervisor:
    """Calls things in its thread, in order, and watches children.

    Parameters
    ----------
    on_ready, on_death : callable
        Called in the thread with the child. At `on_death` it has been reaped.
    """

    def __init__(
        self, on_ready: Callable[[ChildProcess], None], on_death: Callable[[ChildProcess], None]
    ) -> None:
        self._on_ready = on_ready
        self._on_death = on_death
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, (self._called, ()))
        self._living = 0
        self._ending = False
        self.thread = threading.Thread(target=self._watch, name="skyward-supervisor", daemon=True)
        self.thread.start()

    def call(self, function: Callable[..., None], *args: object) -> None:
        """Call the function in the supervisor's thread, soon."""
        self._calls.append((function, args))
        os.write(self._wake_writer, b"\0")

    def end(self) -> None:
        """End the thread when no child lives any more."""
        self.call(self._end)

    def watch(self, child: ChildProcess) -> None:
        """Start to watch a child; in the supervisor's thread."""
        self._living += 1
        register = self._selector.register
        register(child.runs.socket, selectors.EVENT_READ, (self._spoken, (child,)))
        for fd in child.output.readers:
            register(fd, selectors.EVENT_READ, (self._written, (child, fd)))
        if child.pidfd is not None:
            register(child.pidfd, selectors.EVENT_READ, (self._dead, (child,)))
        else:
            threading.Thread(target=self._wait, args=(child,), name="skyward-waiter", daemon=True).start()

    def _wait(self, child: ChildProcess) -> None:
        child.wait()
        self.call(self._dead, child)

    def _watch(self) -> None:
        while self._living or not self._ending:
            for key, _ in self._selector.select():
                function, args = key.data
                function(*args)
        self._selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _end(self) -> None:
        self._ending = True

    def _called(self) -> None:
        # as many bytes as calls, or fewer: a call that comes meanwhile has written its own
        for _ in os.read(self._wake_reader, 4096):
            function, args = self._calls.popleft()
            function(*args)

    def _spoken(self, child: ChildProcess) -> None:
        # from here on `runs` belongs to whoever runs something in the child
        self._selector.unregister(child.runs.socket)
        if child.is_ready():
            self._on_ready(child)

    def _written(self, child: ChildProcess, fd: int) -> None:
        if not child.output.drain(fd):
            self._forget(fd)

    def _dead(self, child: ChildProcess) -> None:
        for item in (child.runs.socket, child.pidfd, *child.output.readers):
            self._forget(item)
        self._living -= 1
        child.reap()
        self._on_death(child)

    def _forget(self, item: Any) -> None:
        if item is not None and item in self._selector.get_map():
            self._selector.unregister(item)
