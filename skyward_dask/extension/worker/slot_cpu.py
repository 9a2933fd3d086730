"""The CPU time of a worker's slots, as part of the worker's own: on the dashboard and in its metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessWithSlots:
    """In the place of the process that a worker's monitor looks at.

    Parameters
    ----------
    process : psutil.Process
        The worker's.
    pids : callable
        The processes of its slots.
    """

    def __init__(self, process: psutil.Process, pids: Callable[[], Iterable[int]]) -> None:
        self._process, self._pids = process, pids
        self._looked, self._seconds = monotonic(), self._measured()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    def cpu_percent(self) -> float:
        """Of one core, since the last look; of a process that was not there then, nothing is counted yet."""
        looked, seconds = monotonic(), self._measured()
        done = sum(now - self._seconds.get(pid, now) for pid, now in seconds.items())
        lasting = max(looked - self._looked, 1 / _TICKS)
        self._looked, self._seconds = looked, seconds
        return float(self._process.cpu_percent()) + 100 * done / lasting

    def _measured(self) -> dict[int, float]:
        measured: dict[int, float] = {}
        for pid in self._pids():
            with suppress(OSError, ValueError):  # it is gone, or there is no such file here
                measured[pid] = _cpu_seconds(pid)
        return measured


def _cpu_seconds(pid: int) -> float:
    """Of a process, and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS
