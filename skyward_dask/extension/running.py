"""The run of a task that is under way in a worker: it can be told to stop, and can ask whether it was."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from skyward_dask.extension import child
from skyward_dask.slots.pool import SlotPool
from skyward_dask.slots.runs import Run, Verdict


@dataclass(slots=True, eq=False)
class TaskRun:
    """One run of a task; not the task: what is said of a run that was given up never meets the next one.

    Notes
    -----
    `stop` is called on the worker's loop, `enter` in the slot's thread. Each sets its own part before it
    looks at the other's, so one of them sees both.
    """

    key: Any = None
    stopped: bool = False
    run: Run | None = None
    pool: SlotPool | None = None

    def enter(self, pool: SlotPool, run: Run) -> None:
        """The run is about to be carried out in that pool."""
        self.run, self.pool = run, pool
        if self.stopped:
            run.verdict = Verdict.STOPPED

    def leave(self) -> None:
        """The run is over.

        It refers to its arguments, and by its way back to this object: in a circle, large arrays would stay
        until the next garbage collection.
        """
        self.run = None

    def stop(self) -> None:
        """Nobody wants the result any more."""
        self.stopped = True
        pool, run = self.pool, self.run
        if pool is not None and run is not None:
            pool.interrupt(run)

    def secede(self) -> None:
        """Go on outside the slot, whose next child takes other tasks."""
        pool, run = self.pool, self.run
        if pool is not None and run is not None:
            pool.secede(run)

    @property
    def slot(self) -> int | None:
        """The index of its process slot, while it has one."""
        child = self.run.child if self.run is not None else None
        return child.slot if child is not None else None

    def stack(self) -> str:
        """Where its process stands, as faulthandler says it; empty if it has none."""
        pool, run = self.pool, self.run
        return pool.stack(run) if pool is not None and run is not None else ""


#: The run that this thread, or this coroutine, carries out in the worker itself.
current: ContextVar[TaskRun | None] = ContextVar("skyward_run", default=None)


def cancelled() -> bool:
    """Whether the task that calls was cancelled, or isn't wanted any more.

    In a process slot a cancelled task is interrupted, and killed after a grace period: there the flag is for
    its other threads, and for code that holds KeyboardInterrupt off. In a thread slot, or in an ``async def``
    task, nothing can end the task but itself: look at the flag now and then.

    Returns
    -------
    bool
        False outside a task too.

    Examples
    --------
    >>> while not cancelled():  # doctest: +SKIP
    ...     step()
    """
    run = current.get()
    return run.stopped if run is not None else child.is_stopped()
