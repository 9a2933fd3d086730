"""Runs that wait for a slot, and how many have one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

from skyward_dask.slots.aside import Tasks, aside
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.outcomes import RunEnded
from skyward_dask.slots.runs import Run


class RunQueue:
    """Pickles runs, and lets them wait until there is room.

    Parameters
    ----------
    size : int
        How many slots there are.
    segments : Segments or None
        Shared memory for their arguments.
    helpers : concurrent.futures.Executor
        Threads that pickle large calls.
    tasks : Tasks
    on_failure : callable
        Takes a run that won't get a child, and the error.
    changed : callable
        Called when a run has started to wait.
    """

    def __init__(
        self,
        size: int,
        segments: Segments | None,
        helpers: Executor,
        tasks: Tasks,
        on_failure: Callable[[Run, BaseException], None],
        changed: Callable[[], None],
    ) -> None:
        self.size = size
        self._segments, self._helpers, self._tasks = segments, helpers, tasks
        self._on_failure, self._changed = on_failure, changed
        self._waiting: deque[Run] = deque()
        self._rejoining: deque[tuple[Run, asyncio.Future[None]]] = deque()
        self._occupied = 0

    def __len__(self) -> int:
        return len(self._waiting)

    # --- in --------------------------------------------------------------------------------------

    def enter(self, run: Run) -> None:
        """Pickle a run, and have it wait."""
        assert run.request is not None
        if run.request.is_large:
            self._tasks.spawn(self._pickle_aside(run))
        else:
            self._pickle(run)
            self._changed()

    def _pickle(self, run: Run) -> None:
        assert run.request is not None
        try:
            run.forms = run.request.pickled(self._segments)
        except Exception as error:  # its caller sees it
            self._on_failure(run, error)
        else:
            self._waiting.append(run)

    async def _pickle_aside(self, run: Run) -> None:
        assert run.request is not None
        try:
            forms = await aside(self._helpers, run.request.pickled, self._segments)
        except Exception as error:  # its caller sees it
            self._on_failure(run, error)
        else:
            if not run.is_over:
                run.forms = forms
                self._waiting.append(run)
        self._changed()

    def put_back(self, run: Run) -> None:
        """Put a run that was lost with its child back to the front of the queue."""
        assert run.request is not None
        run.repeats += 1
        if run.request.again is not None:
            run.request.again()
        self._waiting.appendleft(run)

    def rejoin(self, run: Run) -> asyncio.Future[None]:
        """Have a run that has a child wait for a slot; it comes before those that haven't begun yet."""
        joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if run.slotted:
            joined.set_result(None)
        else:
            self._rejoining.append((run, joined))
        return joined

    # --- out -------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Let runs that wait to rejoin do so, as far as there is room."""
        while self._rejoining and self._occupied < self.size:
            run, joined = self._rejoining.popleft()
            if run.child is not None and not joined.done():
                self._occupy(run)
                joined.set_result(None)

    def next(self) -> Run | None:
        """A run for which there is room: the caller must give it a child at once."""
        while self._waiting and self._occupied < self.size:
            run = self._waiting.popleft()
            if self._may_begin(run):
                self._occupy(run)
                return run
        return None

    def _may_begin(self, run: Run) -> bool:
        if run.is_over:
            return False
        if run.may_begin is None or run.may_begin():
            return True
        self._on_failure(run, RunEnded(f"{run.key}: cancelled before it ran"))
        return False

    def _occupy(self, run: Run) -> None:
        run.slotted = True
        self._occupied += 1

    def vacate(self, run: Run) -> None:
        """The run has no slot any more."""
        if run.slotted:
            run.slotted = False
            self._occupied -= 1

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """No run can get a child: end all that wait, each with an error of its own."""
        waiting, self._waiting = self._waiting, deque()
        for run in waiting:
            self._on_failure(run, make_error())

    def close(self) -> None:
        """The pool is ending: no run has to wait for room any more."""
        for _, joined in self._rejoining:
            joined.cancel()
