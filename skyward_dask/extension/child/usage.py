"""Measures the CPU time and the peak memory of a task, which has its process to itself."""

from __future__ import annotations

import mmap
import os
import resource
from contextlib import suppress
from time import monotonic

#: Writing this to ``clear_refs`` has the kernel reset the peak of resident memory (proc(5)).
_RESET_PEAK = b"5"
#: Bytes by which the peak may exceed the current memory when a run begins: what a small task takes.
_SLACK = 1 << 20
#: Seconds after a run for which its last figures hold: the process has done little but to get the next run.
_FRESH = 0.005


class Meter:
    """Measures one run after another, which takes microseconds each. Used in a child's main thread only.

    Notes
    -----
    CPU time is that of all threads of the process, and of the processes that it has waited for. The peak is
    of resident pages, minus those that belong to files or are shared at the end of the run, such as inputs
    that were only read. Where the kernel keeps no peak, the memory at the end is used instead.
    """

    def __init__(self) -> None:
        self._reset = self._pages = -1
        with suppress(OSError):
            self._pages = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        self._cpu = self._others = 0.0
        self._fresh_until = 0.0
        self._resident_before = 0

    def begin(self, own: float) -> None:
        """Begin to measure a run; `own` are the main thread's CPU seconds."""
        if monotonic() < self._fresh_until:
            self._cpu = own + self._others
            return
        self._cpu, peak = _used()
        self._resident_before = resident = self._resident()[0]
        # a reset takes the kernel some time, and a peak that is only a little too high does no harm
        if self._reset >= 0 and peak > resident + _SLACK:
            try:
                os.write(self._reset, _RESET_PEAK)
            except OSError:  # an earlier task has closed it
                self._reset = -1

    def end(self, own: float) -> tuple[float, int]:
        """CPU seconds since `begin`, and the peak in bytes; 0 where it is unknown."""
        resident, shared = self._resident()
        cpu, peak = _used()
        self._others = cpu - own
        # what it has taken since, it may still free with its result: then the next run's peak is lower
        is_low = peak <= min(resident, self._resident_before) + _SLACK
        self._fresh_until = monotonic() + _FRESH if is_low else 0.0
        return cpu - self._cpu, max(0, (max(resident, peak) if self._reset >= 0 else resident) - shared)

    def _resident(self) -> tuple[int, int]:
        """Bytes of resident pages, and of those among them that belong to files or are shared."""
        try:
            _, resident, shared, *_ = map(int, os.pread(self._pages, 256, 0).split())
        except (OSError, ValueError):
            return 0, 0
        return resident * mmap.PAGESIZE, shared * mmap.PAGESIZE


def _used() -> tuple[float, int]:
    """CPU seconds of this process and of those it has waited for, and its peak as the kernel keeps it."""
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return cpu, own.ru_maxrss * 1024
