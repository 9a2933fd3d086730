"""The run of a task that is under way in a worker: it can be told to stop, and can ask whether it was."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from skyward_dask.extension.child import task
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.runs import Run


@dataclass(slots=True, eq=False)
class TaskRun:
    """One run of a task; not the task: what is said of a run that was given up never meets the next one.

    Notes
    -----
    For the worker's loop, but for `stopped`, which a thread slot's task looks at.
    """

    key: Any = None
    stopped: bool = False
    run: Run | None = None
    pool: Pool | None = None

    def enter(self, pool: Pool, run: Run) -> None:
        """The run is about to be carried out in that pool."""
        self.run, self.pool = run, pool

    def leave(self) -> None:
        """The run is over: it refers to this object, and this object to it no more."""
        self.run = self.pool = None

    def stop(self) -> None:
        """Nobody wants the result any more."""
        self.stopped = True
        if self.pool is not None and self.run is not None:
            self.pool.stop(self.run)

    @property
    def slot(self) -> int | None:
        """The index of its process slot, while it has one."""
        child = self.run.child if self.run is not None else None
        return child.slot if child is not None else None

    async def look(self) -> str:
        """Where its process stands, as faulthandler says it; empty if it has none."""
        return await self.pool.look(self.run) if self.pool is not None and self.run is not None else ""


#: The run that this thread, or this coroutine, carries out in the worker itself.
current: ContextVar[TaskRun | None] = ContextVar("skyward_run", default=None)


def cancelled() -> bool:
    """Whether the calling task was cancelled, or nobody wants its result any more.

    In a process slot a cancelled task is interrupted, and killed after a grace period: there this is for its
    other threads, and for code that catches KeyboardInterrupt. In a thread slot, or in an ``async def`` task,
    only the task itself can end: call this now and then.

    Returns
    -------
    bool
        False outside a task, too.

    Examples
    --------
    >>> while not cancelled():  # doctest: +SKIP
    ...     step()
    """
    run = current.get()
    return run.stopped if run is not None else task.is_stopped()
