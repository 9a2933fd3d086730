"""What a task takes of the process that it has for itself: its CPU time and its peak of memory."""

from __future__ import annotations

import mmap
import os
import resource
from contextlib import suppress
from time import process_time

#: Written to ``clear_refs``, it has the kernel begin anew with the peak of resident memory (proc(5)).
_RESET_PEAK = b"5"
#: Bytes that the peak may be above what the process has when a run begins: what a small task takes.
_SLACK = 1 << 20


class Meter:
    """Measures one run after the other, for microseconds each. For a child's main thread.

    Notes
    -----
    CPU time is that of all threads of the process, and of the processes that it has waited for. The peak is
    of resident pages, less those that are files' or shared at the end of the run, as inputs are that were
    only read. Where the kernel keeps no peak, it is what the process has at the end.
    """

    def __init__(self) -> None:
        self._reset = self._pages = -1
        with suppress(OSError):
            self._pages = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
            self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        self._cpu = 0.0

    def begin(self) -> None:
        """A run begins."""
        self._cpu = _cpu()
        resident, _ = self._resident()
        # the kernel takes its time for it, and a peak of little more than there is now does no harm
        if self._reset >= 0 and _kernels_peak() > resident + _SLACK:
            try:
                os.write(self._reset, _RESET_PEAK)
            except OSError:  # the task before has closed it
                self._reset = -1

    def end(self) -> tuple[float, int]:
        """CPU seconds since then, and the peak in bytes; 0 where nobody knows."""
        resident, shared = self._resident()
        peak = max(resident, _kernels_peak()) if self._reset >= 0 else resident
        return _cpu() - self._cpu, max(0, peak - shared)

    def _resident(self) -> tuple[int, int]:
        """Bytes of pages in memory, and of those of them that are files' or shared."""
        try:
            _, resident, shared, *_ = map(int, os.pread(self._pages, 256, 0).split())
        except (OSError, ValueError):
            return 0, 0
        return resident * mmap.PAGESIZE, shared * mmap.PAGESIZE


def _kernels_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime
