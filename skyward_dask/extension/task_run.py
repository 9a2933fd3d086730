"""A run of a task in a worker: it can be told to stop, and the task can ask whether it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skyward_dask.extension.child import task
from skyward_dask.extension.streams.places import Reading
from skyward_dask.slots.pool import Pool
from skyward_dask.slots.runs import Run

if TYPE_CHECKING:
    from skyward_dask.extension.worker.routing import Route


@dataclass(slots=True, eq=False)
class TaskRun:
    """One run of a task, not the task: stopping a run that was given up doesn't affect the next one.

    Attributes
    ----------
    key
    stopped : bool
        Nobody wants its result any more.
    route : Route or None
        Where it runs; determined once, before it is executed.
    is_stream : bool
        It goes on after its task is finished, as a stream.
    when_stopped : list of callable
        Called on the worker's loop when the run is stopped.
    when_over : list of callable
        Called there when its stream is over.
    reads : list of Reading
        The streams that it has begun to read, in the worker itself.
    has_thread : callable
        Whether its generator is stepped in a thread slot at the moment.
    hear : callable or None
        Takes what it prints in the worker's own process: `WatchedOutput.hear`.

    Notes
    -----
    Used on the worker's loop only, except `stopped`, which a thread slot's task reads.
    """

    key: Any = None
    stopped: bool = False
    route: Route | None = None
    hear: Callable[[str, str, str], bool] | None = None
    has_thread: Callable[[], bool] = bool
    run: Run | None = None
    pool: Pool | None = None
    is_stream: bool = False
    when_stopped: list[Callable[[], object]] = field(default_factory=list)
    when_over: list[Callable[[], object]] = field(default_factory=list)
    reads: list[Reading] = field(default_factory=list)

    def enter(self, pool: Pool, run: Run) -> None:
        """The run is about to be carried out in that pool."""
        self.run, self.pool = run, pool

    def leave(self) -> None:
        """The run is over: it refers to this object, so this object must no longer refer to it."""
        self.run = self.pool = None

    def stop(self) -> None:
        """Stop the run: nobody wants its result any more."""
        self.stopped = True
        for call in self.when_stopped:
            call()
        if self.pool is not None and self.run is not None:
            self.pool.stop(self.run)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Its function is called in the block; afterwards it reads no more, unless it is a stream."""
        try:
            yield
        finally:
            if not self.is_stream:
                self.close_what_it_read()

    def close_what_it_read(self) -> None:
        """It reads no more, whoever still has those streams: its arguments live longer than the run."""
        while self.reads:
            self.reads.pop().close()

    @property
    def has_slot(self) -> bool:
        """Whether it holds a slot at the moment: a stream that waits doesn't."""
        return self.run.slotted if self.run is not None else self.has_thread()

    @property
    def slot(self) -> int | None:
        """The index of its process slot, while it has one."""
        child = self.run.child if self.run is not None else None
        return child.slot if child is not None else None

    async def look(self) -> str:
        """The stacks of its process, as faulthandler writes them; empty if it has none."""
        return await self.pool.look(self.run) if self.pool is not None and self.run is not None else ""


#: The run that this thread, or this coroutine, carries out in the worker itself.
current: ContextVar[TaskRun | None] = ContextVar("skyward_run", default=None)


def cancelled() -> bool:
    """Whether the calling task was cancelled, or nobody wants its result any more.

    In a process slot a cancelled task is interrupted, and killed after a grace period: there, this function
    is for the task's other threads, and for code that catches KeyboardInterrupt. A task in a thread slot, or
    an ``async def`` task, can only end by itself: it should call this function now and then.

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
