"""Tells the scheduler how many slots the streams of a worker hold: for Dask, their tasks are finished."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from distributed import Worker as DaskWorker

from skyward_dask.extension.streams.names import HELD
from skyward_dask.extension.task_run import TaskRun

#: Seconds between two looks. A stream may wait and go on thousands of times a second: what matters to whoever
#: places tasks is what it does most of the time.
_INTERVAL = 0.2


class StreamSlots:
    """Looks at streams as long as there are any, and reports changes. Used on the worker's loop only.

    Parameters
    ----------
    worker : distributed.Worker
    runs : mapping of TaskRun
        The runs that are streams.
    """

    def __init__(self, worker: DaskWorker, runs: Mapping[Any, TaskRun]) -> None:
        self._worker, self._runs = worker, runs
        self._told = 0
        self._is_looking = False

    def watch(self) -> None:
        """There is a stream."""
        if not self._is_looking:
            self._is_looking = True
            self._worker.loop.call_later(_INTERVAL, self._look)

    def _look(self) -> None:
        held = sum(run.has_slot for run in self._runs.values())
        self._is_looking = bool(self._runs)
        if self._is_looking:
            self._worker.loop.call_later(_INTERVAL, self._look)
        if held != self._told:
            self._told = held
            with suppress(OSError):  # the connection has ended, and the worker closes
                self._worker.batched_stream.send({"op": HELD, "held": held})
