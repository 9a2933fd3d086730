"""Tells Dask who holds a slot: streams do, though their tasks are finished; who waits for an item doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from distributed import Worker as DaskWorker

from skyward_dask.extension import private
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
        self._waiting: dict[Any, bool] = {}  # keys, and whether the last look has seen them

    def wait(self, key: Any) -> None:
        """A task waits for an item, outside its slot."""
        self._waiting[key] = False
        self.watch()

    def go_on(self, key: Any) -> None:
        """The task has its item."""
        self._waiting.pop(key, None)

    def watch(self) -> None:
        """There is a stream, or a task that waits for one."""
        if not self._is_looking:
            self._is_looking = True
            self._worker.loop.call_later(_INTERVAL, self._look)

    def _look(self) -> None:
        held = sum(run.has_slot for run in self._runs.values())
        self._give_slots(held)
        self._is_looking = bool(self._runs or self._waiting)
        if self._is_looking:
            self._worker.loop.call_later(_INTERVAL, self._look)
        if held != self._told:
            self._told = held
            with suppress(OSError):  # the connection has ended, and the worker closes
                self._worker.batched_stream.send({"op": HELD, "held": held})

    def _give_slots(self, held: int) -> None:
        """If slots are free because their tasks wait, have Dask start others: the items may depend on them.

        Not before: as long as others compute, those that wait would only become more. For Dask, such a task
        is "long-running" from then on, as after a `secede`.
        """
        state = self._worker.state
        executing = {task.key for task in state.executing}
        waiting = [key for key in self._waiting if key in executing]
        free = state.nthreads - (len(executing) - len(waiting) + held)
        for key in [key for key in waiting if self._waiting[key]][: max(free, 0)]:
            private.secede(self._worker, key, None)
            waiting.remove(key)
        self._waiting = dict.fromkeys(waiting, True)
