"""Process trees: which processes descend from which, and how to end them all.

A *subreaper* (Linux) inherits the orphans of its descendants: what a task has started can be found below its
slot's process, and once that is dead below the template, whatever sessions and groups it has created.
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
#: On the command line of resource trackers.
_TRACKER = b"resource_tracker import main"
#: Seconds that trackers have to clean up: that takes about 50 ms, more on a busy machine.
_MERCY = 1.0
#: Seconds between two looks at processes that were killed and haven't ended yet.
_LOOK = 0.002


def become_subreaper() -> None:
    """Have the orphans of this process's descendants become its children."""
    if available(Feature.SUBREAPER):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def wake_at_parents_death() -> None:
    """Have this process, if it is stopped, continue when the thread that started it has ended."""
    if available(Feature.SUBREAPER):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """The children of a process, of all its threads; empty where ``/proc`` doesn't say."""
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """All descendants of a process, not including itself."""
    found: list[int] = []
    level = children(pid)
    while level:
        found += level
        level = [child for parent in level for child in children(parent)]
    return found


def end_descendants(pid: int, patience: float, spared: Set[int] = frozenset()) -> None:
    """Kill the descendants of a process until none is left.

    Resource trackers (multiprocessing's, loky's) come last, and get a moment: once all others have ended,
    they remove what those left in shared memory, and end by themselves.

    Parameters
    ----------
    pid : int
        This process, or one that is stopped: another may start processes as fast as they are killed.
    patience : float
        Seconds after which we give up on processes that can't be killed (they wait in the kernel).
    spared : set of int
        Children of `pid` that are not killed.
    """
    deadline = time.monotonic() + patience
    trackers = end_all_but_trackers(pid, patience, spared)
    _await_ends(trackers, min(deadline, time.monotonic() + _MERCY))
    while left := _left(pid, spared):
        for each in left:
            _signal(each, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(_LOOK)


def end_all_but_trackers(pid: int, patience: float, spared: Set[int] = frozenset()) -> Set[int]:
    """Kill the descendants of a process, except for resource trackers; returns those."""
    deadline = time.monotonic() + patience
    while True:
        left = _left(pid, spared)
        trackers = set(filter(_is_tracker, left))
        if left == trackers or time.monotonic() > deadline:
            return trackers
        for each in left - trackers:
            _signal(each, signal.SIGKILL)
        time.sleep(_LOOK)


def has_tracker(pid: int, spared: Set[int]) -> bool:
    """Whether a resource tracker descends from a process, but not from its `spared` children."""
    return any(map(_is_tracker, _left(pid, spared)))


def _left(pid: int, spared: Set[int]) -> set[int]:
    living = [child for child in children(pid) if child not in spared and _lives(child)]
    return {each for child in living for each in (child, *descendants(child))}


def _await_ends(pids: Set[int], deadline: float) -> None:
    while any(map(_lives, pids)) and time.monotonic() < deadline:
        time.sleep(_LOOK)


def _is_tracker(pid: int) -> bool:
    """Whether a process is a resource tracker: Python runs them all in the same way."""
    with suppress(OSError):  # it has ended
        return _TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def end_tree(pid: int, patience: float, send: Callable[[int], None]) -> None:
    """Kill a process that this one can't reap, with all its descendants.

    Parameters
    ----------
    send : callable
        Sends a signal to the process itself, and never to another that may have its pid by now.
    """
    send(signal.SIGSTOP)  # otherwise a pool in it would restart its workers
    trackers = end_all_but_trackers(pid, patience)
    send(signal.SIGKILL)
    _await_ends({pid}, time.monotonic() + patience)
    _await_ends(trackers, time.monotonic() + _MERCY)
    for tracker in filter(_is_tracker, trackers):
        _signal(tracker, signal.SIGKILL)


def end_marked(mark: bytes, patience: float) -> None:
    """Kill all processes that have a mark in the environment that they were started with.

    Parameters
    ----------
    patience : float
        Seconds after which we give up on processes that can't be killed.
    """
    deadline = time.monotonic() + patience
    while left := [pid for pid in _processes() if mark in _environment(pid) and _lives(pid)]:
        for pid in left:
            _signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(_LOOK)


def _processes() -> list[int]:
    """All process ids; empty where there is no ``/proc``."""
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _environment(pid: int) -> bytes:
    with suppress(OSError):  # it has ended, or belongs to somebody else
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def _lives(pid: int) -> bool:
    """Whether a process is more than a zombie.

    The kernel calls a process dead when its main thread is; its other threads may still have children.
    """
    state = _state(pid)
    return state not in "ZX" or (state == "Z" and _has_threads(pid))


def _has_threads(pid: int) -> bool:
    with suppress(OSError):  # it has ended
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    return False


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped until it is told to continue; False where ``/proc`` doesn't say."""
    return _state(pid) in "Tt"


def _state(pid: int) -> str:
    """The letter by which the kernel says what a process does; ``X`` for one that has ended."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
