"""The limits of a pool's runs: their deadlines, and the memory of their processes.

While the loop is blocked, templates enforce them (`child.limit_guard`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from time import monotonic

from skyward_dask.slots.aside import Tasks, aside
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.own_memory import own_memory, pause
from skyward_dask.slots.runs import Run, Verdict
from skyward_dask.slots.stacks import of_tasks

#: Seconds that a child's listener has to write the stacks of a run that timed out: few, as it doesn't matter
#: here if a look harms the child.
_HASTE = 0.3


class Limits:
    """Gives a verdict on each run that is over a limit. For the pool's loop.

    Parameters
    ----------
    helpers : concurrent.futures.Executor
        Threads that look at processes.
    tasks : Tasks
    on_verdict : callable
        Takes a run that must be ended, and the child that has it.
    """

    def __init__(
        self, helpers: Executor, tasks: Tasks, on_verdict: Callable[[Run, ChildProcess], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._helpers, self._tasks, self._on_verdict = helpers, tasks, on_verdict
        self._limited: set[Run] = set()  # those with a memory limit
        self._looked_at: set[Run] = set()  # those that have timed out, while their stacks are read

    def watch(self, run: Run) -> None:
        """A child has the run now."""
        if run.timeout is not None:
            run.deadline = self._loop.call_later(run.timeout, self._time_out, run)
        if run.memory_limit is not None:
            self._limited.add(run)
            if len(self._limited) == 1:
                self._tasks.spawn(self._watch_memory())

    def heed(self, run: Run, child: ChildProcess) -> None:
        """Act on the template's report that the run was over a limit while this loop was blocked."""
        found = child.overrun() if run.has_limits else None
        if found is None:
            return
        run.stack = run.stack or of_tasks(found.stack)
        if run.verdict is None:
            run.verdict, run.peak = Verdict.OUT_OF_MEMORY if found.peak else Verdict.TIMED_OUT, found.peak
            self._on_verdict(run, child)

    def end_look(self, run: Run, child: ChildProcess) -> None:
        """Act on a time-out, once: the stacks have been read, or the child has died meanwhile."""
        if run in self._looked_at:
            self._looked_at.discard(run)
            self._on_verdict(run, child)

    def forget(self, run: Run) -> None:
        """The run is over."""
        self._limited.discard(run)
        self._looked_at.discard(run)

    # --- time --------------------------------------------------------------------------------------

    def _time_out(self, run: Run) -> None:
        child, timeout = run.child, run.timeout
        assert child is not None and timeout is not None
        if (due := child.due(timeout)) > self._loop.time():
            run.deadline = self._loop.call_at(due, self._time_out, run)
        elif run.verdict is None:
            run.verdict = Verdict.TIMED_OUT  # first: whatever the look does to the task, its result is void
            self._looked_at.add(run)
            self._tasks.spawn(self._look_and_end(run, child))

    async def _look_and_end(self, run: Run, child: ChildProcess) -> None:
        run.stack = await child.stacks.look(_HASTE)
        self.end_look(run, child)

    # --- memory ------------------------------------------------------------------------------------

    async def _watch_memory(self) -> None:
        """Look at all runs that have a memory limit, as long as there are any."""
        while self._limited:
            looked = {run: run.child for run in self._limited if run.child is not None}
            used = await aside(self._helpers, _measured, [child.pid for child in looked.values()])
            shortest = 1.0
            for (run, child), size in zip(looked.items(), used, strict=True):
                shortest = min(shortest, self._judge_memory(run, child, size))
            self._limited = {run for run in self._limited if not run.is_over and run.verdict is None}
            await asyncio.sleep(shortest)

    def _judge_memory(self, run: Run, child: ChildProcess, size: int) -> float:
        """End a run that is over its limit; returns the seconds until the next look."""
        limit = run.memory_limit
        assert limit is not None
        if run.child is child:
            child.page.watched = monotonic()
            if size > limit and run.verdict is None:
                run.verdict, run.peak = Verdict.OUT_OF_MEMORY, size
                self._on_verdict(run, child)
        return pause(limit, size)


def _measured(pids: list[int]) -> list[int]:
    return list(map(own_memory, pids))
