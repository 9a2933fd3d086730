"""Process trees: who descends from whom, and how to end them all.

A *subreaper* (Linux) gets the orphans of its descendants: what a task has started can be found under its
slot's process, and once that is dead under the template, whatever sessions and groups it has made.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path

from skyward_dask.slots.features import Feature, available

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: Seconds between two looks at processes that were killed and have yet to go.
_LOOK = 0.002


def become_subreaper() -> None:
    """Have the orphans of this process's descendants become its children."""
    if available(Feature.SUBREAPER):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def wake_at_parents_death() -> None:
    """Have a stopped process go on when the thread that started it is gone."""
    if available(Feature.SUBREAPER):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads; empty where ``/proc`` doesn't tell."""
    found: list[int] = []
    with suppress(OSError):  # it is gone
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """All that descends from a process, itself excluded."""
    found: list[int] = []
    level = children(pid)
    while level:
        found += level
        level = [child for parent in level for child in children(parent)]
    return found


def end_descendants(pid: int, patience: float, spared: Set[int] = frozenset()) -> None:
    """Kill what descends from a process until nothing is left.

    Parameters
    ----------
    pid : int
        This process, or one that is stopped: else it may start more as fast as they are killed.
    patience : float
        Seconds after which what can't be killed (waiting in the kernel) is left to its fate.
    spared : set of int
        Children of `pid` that live on.
    """
    deadline = time.monotonic() + patience
    while left := [child for child in children(pid) if child not in spared and _lives(child)]:
        for child in left:
            for descendant in (*descendants(child), child):
                _signal(descendant, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(_LOOK)


def end_tree(pid: int, patience: float, send: Callable[[int], None]) -> None:
    """Kill a process that isn't ours to reap, with all that descends from it.

    Parameters
    ----------
    send : callable
        Sends a signal to the process itself, and to no other that may have its number by now.
    """
    send(signal.SIGSTOP)  # a pool in it would start its workers anew
    end_descendants(pid, patience)
    send(signal.SIGKILL)
    deadline = time.monotonic() + patience
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(_LOOK)


def end_marked(mark: bytes, patience: float) -> None:
    """Kill all processes that have a mark in the environment that they were started with.

    Parameters
    ----------
    patience : float
        Seconds after which what can't be killed is left to its fate.
    """
    deadline = time.monotonic() + patience
    while left := [pid for pid in _processes() if mark in _environment(pid) and _lives(pid)]:
        for pid in left:
            _signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(_LOOK)


def _processes() -> list[int]:
    """All that there are; empty where there is no ``/proc``."""
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _environment(pid: int) -> bytes:
    with suppress(OSError):  # it is gone, or somebody else's
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def _lives(pid: int) -> bool:
    """Whether a process is more than an entry that nobody has reaped.

    The kernel calls it dead when its first thread is; others may yet hold what they have forked.
    """
    state = _state(pid)
    return state not in "ZX" or (state == "Z" and _has_threads(pid))


def _has_threads(pid: int) -> bool:
    with suppress(OSError):  # it is gone
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    return False


def is_stopped(pid: int) -> bool:
    """Whether a process does nothing until it is told to go on; False where ``/proc`` doesn't tell."""
    return _state(pid) in "Tt"


def _state(pid: int) -> str:
    """The letter by which the kernel says what a process does; ``X`` for one that is gone."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
