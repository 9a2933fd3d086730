"""The one thread that starts children, hears that they are ready, reads their output and sees them die.

```
 pool ── start(child), at(time, …) ──▶ supervisor ── fork ──▶ template ──▶ children
      ◀─ on_ready, on_death ─               ◀─ exited ─
```

A template that is killed, or that doesn't answer, is replaced; its children end with it. One that is stale
is replaced too, and ends when its last child has ended.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.channel import Part
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.guardian import PATIENCE, Guardian, GuardianLost
from skyward_dask.slots.output import PATIENCE as LINE_PATIENCE
from skyward_dask.slots.output import Output, Sink
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.process import ChildProcess

#: Templates lost in a row, with no child forked in between, after which a start has failed. Two more than
#: the one that somebody may kill on purpose: arbitrary.
_LOST_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Listener:
    """What the supervisor calls, in its own thread."""

    on_ready: Callable[[ChildProcess], None]
    on_death: Callable[[ChildProcess], None]
    sink: Sink


class Supervisor:
    """Calls things in its thread, in order or at their time, and watches children.

    Parameters
    ----------
    preparation : Preparation
    calls : list
        The initializer and the health check, pickled.
    listener : Listener
        At `on_death` the child is dead, with all that it started.
    """

    def __init__(self, preparation: Preparation, calls: list[Part], listener: Listener) -> None:
        self._preparation, self._pickled_calls = preparation, calls
        self._listener = listener
        self._calling = threading.Lock()
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, (self._called, ()))
        self._guardian: Guardian | None = None
        self._guardians: set[Guardian] = set()
        self._guardians_lost = 0
        self._to_start: list[ChildProcess] = []
        self._ending = False
        self.thread = threading.Thread(target=self._watch, name="skyward-supervisor", daemon=True)
        self.thread.start()

    # --- its thread ------------------------------------------------------------------------------

    def call(self, function: Callable[..., None], *args: object) -> None:
        """Call the function in the supervisor's thread, soon."""
        with self._calling:
            if self._selector.get_map() is not None:  # else the thread has ended: nothing is left to be done
                self._calls.append((function, args))
                os.write(self._wake_writer, b"\0")

    def at(self, moment: float, function: Callable[..., None], *args: object) -> None:
        """Call the function in the supervisor's thread at that moment of `time.monotonic`."""
        self.call(self._set_timer, moment, function, *args)

    def end(self) -> None:
        """End the thread when no child lives any more."""
        self.call(self._end)

    def _set_timer(self, moment: float, function: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._timers, (moment, next(self._order), function, args))

    def _watch(self) -> None:
        while not self._ending or self._to_start or self._guardians:
            for key, _ in self._selector.select(self._pause()):
                # what was heard first in this turn may have been of the death of whom this one concerns
                if self._selector.get_map().get(key.fd) is key:
                    function, args = key.data
                    function(*args)
            while self._timers and self._timers[0][0] <= time.monotonic():
                _, _, function, args = heapq.heappop(self._timers)
                function(*args)
        with self._calling:
            self._selector.close()
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def _pause(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _end(self) -> None:
        self._ending = True
        for child in list(self._to_start):
            self.drop(child)
        self._dismiss_guardian()

    def _called(self) -> None:
        # as many bytes as calls, or fewer: a call that comes meanwhile has written its own
        for _ in os.read(self._wake_reader, 4096):
            function, args = self._calls.popleft()
            function(*args)

    # --- children begin --------------------------------------------------------------------------

    def start(self, child: ChildProcess) -> None:
        """Start a child when its time has come and there is a template; in the supervisor's thread."""
        self._to_start.append(child)
        if self._ending:
            self.drop(child)
        elif child.not_before > time.monotonic():
            self._set_timer(child.not_before, self._start_children)
        else:
            self._start_children()

    def renew(self, preparation: Preparation) -> None:
        """Start children with this preparation from now on; in the supervisor's thread."""
        self._preparation = preparation
        self._dismiss_guardian()

    def drop(self, child: ChildProcess) -> None:
        """Bury a child that has been given up before it was started; in the supervisor's thread."""
        if child in self._to_start:
            self._to_start.remove(child)
            self._bury(child, None)

    def _start_children(self) -> None:
        while (child := self._due()) is not None and (guardian := self._ready_guardian()) is not None:
            self._to_start.remove(child)
            try:
                child.start(guardian)
            except GuardianLost:
                self._lose(guardian, child)
            except OSError as error:
                self._fail(child, SlotStartFailed(f"no process can be started for a slot: {error!r}"))
            else:
                self._guardians_lost = 0
                self._welcome(child, guardian)
            self._hear(guardian)

    def _due(self) -> ChildProcess | None:
        now = time.monotonic()
        return next((child for child in self._to_start if child.not_before <= now), None)

    def _ready_guardian(self) -> Guardian | None:
        """The template, if it is ready to fork; else it is on its way, or nobody waits for one any more."""
        if self._guardian is None:
            try:
                guardian = self._guardian = Guardian(self._preparation, self._listener.sink)
            except (OSError, ValueError) as error:  # the latter: an environment that no process can have
                self._fail_all(SlotStartFailed(f"no process can be started for a pool: {error!r}"))
                return None
            self._guardians.add(guardian)
            self._selector.register(guardian.control, selectors.EVENT_READ, (self._hear, (guardian,)))
            self._read(guardian.output)
            self._set_timer(time.monotonic() + PATIENCE, self._lose_if_stopped, guardian)
        return self._guardian if self._guardian.ready else None

    def _fail(self, child: ChildProcess, error: SlotStartFailed) -> None:
        child.failure = error
        self._bury(child, None)

    def _fail_all(self, error: SlotStartFailed) -> None:
        children, self._to_start = self._to_start, []
        for child in children:
            self._fail(child, error)

    def _welcome(self, child: ChildProcess, guardian: Guardian) -> None:
        guardian.children[child.pid] = child
        self._selector.register(child.runs.socket, selectors.EVENT_READ, (self._spoken, (child,)))
        self._read(child.output)
        if child.pidfd is not None:
            self._selector.register(child.pidfd, selectors.EVENT_READ, (self._seen_dead, (child,)))
        child.prepare(self._preparation, self._pickled_calls)

    def _read(self, output: Output) -> None:
        for fd in output.readers:
            self._selector.register(fd, selectors.EVENT_READ, (self._written, (output, fd)))

    def _spoken(self, child: ChildProcess) -> None:
        # from here on `runs` belongs to whoever runs something in the child
        self._selector.unregister(child.runs.socket)
        if child.is_ready():
            self._listener.on_ready(child)

    def _written(self, output: Output, fd: int) -> None:
        if not output.drain(fd):
            self._forget(fd)
        if output.waits():
            self._set_timer(time.monotonic() + LINE_PATIENCE, output.pass_on)

    # --- children end ----------------------------------------------------------------------------

    def _hear(self, guardian: Guardian) -> None:
        if guardian not in self._guardians:
            return
        was_ready = guardian.ready
        try:
            for pid, code in guardian.hear():
                self._bury(guardian.children.pop(pid), code)
        except GuardianLost:
            self._lose(guardian)
            return
        if guardian.ready and not was_ready:
            self._start_children()
        self._end_if_done(guardian)

    def _seen_dead(self, child: ChildProcess) -> None:
        self._forget(child.pidfd)
        self.expect_burial(child)

    def expect_burial(self, child: ChildProcess) -> None:
        """A child is dead, or as good as: its template, which says so, has its time for that."""
        self._set_timer(time.monotonic() + PATIENCE, self._lose_if_silent, child)

    def _lose_if_silent(self, child: ChildProcess) -> None:
        for guardian in list(self._guardians):
            if guardian.children.get(child.pid) is child:
                self._lose(guardian)

    def _bury(self, child: ChildProcess, code: int | None) -> None:
        for item in (child.runs.socket, child.pidfd, *child.output.readers):
            self._forget(item)
        child.bury(code)
        self._listener.on_death(child)

    def _forget(self, item: Any) -> None:
        if item is not None and item in self._selector.get_map():
            self._selector.unregister(item)

    # --- templates end ---------------------------------------------------------------------------

    def _dismiss_guardian(self) -> None:
        """Start no more children with the present template; it ends with its last one."""
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            self._end_if_done(guardian)

    def _end_if_done(self, guardian: Guardian) -> None:
        if guardian is not self._guardian and not guardian.children:
            self._forget_guardian(guardian)

    def _lose_if_stopped(self, guardian: Guardian) -> None:
        """Look after a template while it prepares: it may take its time for imports, but not for ever.

        And for good where nobody else tells of deaths: a grandchild can hold a dead child's socket open.
        """
        if guardian not in self._guardians or (guardian.ready and available(Feature.PIDFD)):
            return
        if guardian.is_stopped():
            self._lose(guardian)
        else:
            self._set_timer(time.monotonic() + PATIENCE, self._lose_if_stopped, guardian)

    def _lose(self, guardian: Guardian, starting: ChildProcess | None = None) -> None:
        """End what a lost template leaves; what it had to start gets another template, or has failed."""
        if guardian not in self._guardians:
            return
        guardian.kill()
        with suppress(GuardianLost):  # what it said before it was lost
            for pid, code in guardian.hear():
                self._bury(guardian.children.pop(pid), code)
        for child in list(guardian.children.values()):
            child.kill_tree()
            self._bury(guardian.children.pop(child.pid), None)
        guardian.end_strays()
        self._forget_guardian(guardian)
        self._guardians_lost += 1
        failed = guardian.ended_itself() or self._guardians_lost >= _LOST_IN_A_ROW
        if starting is not None:
            starting.orphaned = not failed
            self._fail(starting, guardian.failure())
        if failed:
            self._fail_all(guardian.failure())
        self._start_children()

    def _forget_guardian(self, guardian: Guardian) -> None:
        for item in (guardian.control, *guardian.output.readers):
            self._forget(item)
        self._guardians.discard(guardian)
        if guardian is self._guardian:
            self._guardian = None
        guardian.close()
