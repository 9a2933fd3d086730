"""Orphans of a slot's tasks: a subreaper inherits them, and has to reap them.

A task waits for the processes that it has started itself, now or in a later run. The kernel doesn't say which
children a process has started and which it has inherited: so we note what Python starts.
"""

from __future__ import annotations

import functools
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from time import monotonic
from typing import Any

from skyward_dask.slots.trees import children

#: What starts processes: modules, and functions that return a process id, or a tuple that begins with it.
_STARTERS = (
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (import_module("_posixsubprocess"), "fork_exec"),
    (subprocess, "_fork_exec"),
)
#: Seconds for which a dead child is left to C code, which may have started it and be about to wait for it.
_COURTESY = 0.1


class Orphans:
    """The children of this process that it hasn't started itself. For the main thread only, between runs."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._own: set[int] = set()
        self._dead_since: dict[int, float] = {}
        for module, name in _STARTERS:
            if hasattr(module, name):
                setattr(module, name, self._noted(getattr(module, name)))

    def _noted(self, start: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(start)
        def noted(*args: Any, **kwargs: Any) -> Any:
            with self._starting:  # a child that ends at once is not taken for an orphan meanwhile
                started = start(*args, **kwargs)
                self._own.add(started[0] if isinstance(started, tuple) else started)
            return started

        return noted

    def reap(self) -> bool:
        """Reap dead orphans; returns whether there are children, which will end at some time."""
        with suppress(ChildProcessError):
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                self._reap()
            return True
        return False

    def _reap(self) -> None:
        now = monotonic()
        with self._starting:
            there = set(children(os.getpid()))
            self._own &= there
            dead = {pid for pid in there - self._own if _is_dead(pid)}
        self._dead_since = {pid: self._dead_since.get(pid, now) for pid in dead}
        for pid, since in self._dead_since.items():
            if now - since >= _COURTESY:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _is_dead(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return False
