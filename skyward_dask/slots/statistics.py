"""What a slot has done, and what its process uses: the same dataclass all the way from a pool to a user."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_HAS_PROC = Path("/proc/self/stat").exists()
_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class SlotStatistics:
    """One slot at one moment.

    Attributes
    ----------
    index : int
    state : str
        ``"vacant"``, ``"starting"``, ``"idle"``, ``"busy"``, ``"stopping"`` or ``"killing"``.
    pid : int or None
    task : str or None
        The key of the task that is running there.
    tasks_done, crashes, kills : int
        Counted since the worker started; for a pool without a worker, since the pool was made.
    memory : int
        Resident bytes of its process; 0 for a thread, whose memory is the worker's.
    cpu : float
        CPU seconds of its current process and of the processes that it has waited for; for a thread, of all
        its tasks.
    """

    index: int
    state: str
    pid: int | None
    task: str | None
    tasks_done: int
    crashes: int
    kills: int
    memory: int
    cpu: float


def process_usage(pid: int) -> tuple[int, float]:
    """Resident bytes of a process, and CPU seconds of it and of those that it has waited for.

    Zeros for a process that has ended. Where there is ``/proc``, one file is read: psutil takes ten times as
    long, and a node may have 64 slots.
    """
    with suppress(OSError, ValueError, psutil.Error):
        return _from_proc(pid) if _HAS_PROC else _from_psutil(pid)
    return 0, 0.0


def _from_proc(pid: int) -> tuple[int, float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[21]) * _PAGE, sum(map(int, fields[11:15])) / _TICKS


def _from_psutil(pid: int) -> tuple[int, float]:
    process = psutil.Process(pid)
    return process.memory_info().rss, sum(process.cpu_times()[:4])
