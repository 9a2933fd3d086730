"""Limits of runs, which the template enforces when the worker doesn't: the worker's loop may be blocked.

```
 worker's loop ── limits of the run, when it last looked ─▶ page ◀─ begun, called, ended ── child
 template      ── reads the page; stops the child, reads again; over its limit ─▶ page, kill
```

When the worker's loop runs again, it finds what the template wrote, and the run ends as if the worker had
looked itself.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from skyward_dask.slots.own_memory import own_memory
from skyward_dask.slots.status_page import SILENCE, Page, signal_listener

#: Seconds between two looks, which cost microseconds for each child, and more where memory is measured.
_PAUSE = 0.25
#: Seconds that the worker has to end a run that timed out: some loops are always a little behind.
_SLACK = 1.0
#: Seconds after which the worker's last look at a run's memory is too old: it looks every tenth of a second.
_OLD = 0.5
#: Seconds that a process has to stop, and faulthandler to write: either takes a millisecond, when the process
#: has its turn.
_PATIENCE = 0.5
#: Seconds between two checks whether that has happened.
_INSTANT = 0.002


class LimitGuard:
    """Watches the pages of a template's children, from the moment when `begin` is called."""

    def __init__(self) -> None:
        self._pages: dict[int, Page] = {}
        self._due: float | None = None

    def begin(self) -> None:
        """There are runs with limits from now on."""
        self._due = time.monotonic()

    def add(self, pid: int, page: int) -> None:
        """A child was started with the page on this descriptor, which the guard now owns."""
        self._pages[pid] = Page(page)

    def remove(self, pid: int) -> None:
        """A child is dead."""
        self._pages.pop(pid).close()

    def close(self) -> None:
        """Close all pages, in a process that was just forked."""
        while self._pages:
            self._pages.popitem()[1].close()

    @property
    def pause(self) -> float | None:
        """Milliseconds until the next look; None if there is nothing to look at."""
        if self._due is None or not self._pages:
            return None
        return max(0.0, (self._due - time.monotonic()) * 1000)

    def look(self) -> None:
        """If it is time to look, end a run that is over its limit, if there is one.

        Only one at a time, so that others are served in between.
        """
        now = time.monotonic()
        if self._due is None or now < self._due:
            return
        for pid, page in self._pages.items():
            if _peak_if_over(pid, page) is not None and _end(pid, page):
                return
        self._due = now + _PAUSE


def _peak_if_over(pid: int, page: Page) -> int | None:
    """Bytes that a run over its memory limit uses, 0 if it timed out; None if it is within its limits."""
    limits, now = page.limits(), time.monotonic()
    if limits is None:
        return None
    if limits.timeout and (called := page.called) and now > called + limits.timeout + _SLACK:
        return 0
    if limits.memory and now > page.watched + _OLD and (used := own_memory(pid)) > limits.memory:
        return used
    return None


def _end(pid: int, page: Page) -> bool:
    """End a child's run; returns False if the run has ended in time, or the child can't be stopped.

    Nothing changes in a stopped child: what is read then is still true when it is killed.
    """
    _signal(pid, signal.SIGSTOP)
    peak = _peak_if_over(pid, page) if _has_stopped(pid) else None
    if peak is not None:
        page.condemn(peak)
        if not peak:
            _tell_stacks(pid, page)
        _signal(pid, signal.SIGKILL)
    _signal(pid, signal.SIGCONT)
    return peak is not None


def _tell_stacks(pid: int, page: Page) -> None:
    """Have a stopped child write the stacks of its threads."""
    since = at = page.written()
    signal_listener(pid, page)
    _signal(pid, signal.SIGCONT)
    deadline = time.monotonic() + _PATIENCE
    while page.written() == since and time.monotonic() < deadline:
        time.sleep(_INSTANT)
    while page.written() > at:
        at = page.written()
        time.sleep(SILENCE)
    if at > since:
        page.add_stacks(since, at)


def _has_stopped(pid: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_code == os.CLD_STOPPED
        time.sleep(_INSTANT)
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    """Signal a child that is alive, or dead and not yet reaped: so the process id is still its own."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
