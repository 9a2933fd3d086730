"""`Pool`: long-lived child processes that run one call at a time each, and can die without harm to others.

```
 start(run) ─▶ RunQueue ─ pickled, there is room ─▶ child of Slots ─ Ended ──▶ run.finish
 stop(run) ───────────── verdict ─▶ Slots: interrupt, kill
 Limits: time, memory ── verdict ─▶ Slots: kill
 Nursery: a child is dead ────────▶ Slots: a successor; run.finish, or back to the queue
```

All of it runs on one event loop: whatever happens is an event there, and a run needs no lock and no thread.
Work that may take longer than a millisecond (pickling and copying large values, looking at processes) is done
in a few helper threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from importlib import import_module
from typing import Any

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.aside import Tasks
from skyward_dask.slots.child_messages import Allocate, Ask, Ended, Item, Items, Raised, Ready
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.exceptions import load_exception
from skyward_dask.slots.few_children import FewChildren
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.lifecycle import Event
from skyward_dask.slots.limits import Limits
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.nursery import Nursery
from skyward_dask.slots.outcomes import PoolClosed, RunEnded, error_of
from skyward_dask.slots.output import Sink
from skyward_dask.slots.own_memory import own_memory
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.requests import grant, serve
from skyward_dask.slots.run_queue import RunQueue
from skyward_dask.slots.runs import Run, Verdict
from skyward_dask.slots.slots import Slots
from skyward_dask.slots.statistics import SlotStatistics, process_usage
from skyward_dask.slots.yielded_items import take_item, take_items, take_unsent

#: How often a run is given to another child because its own was lost through no fault of the run. A task that
#: kills the template each time would otherwise run for ever. Arbitrary: more often than chance may require.
_REPEATS = 5
#: Verdicts that end a run by its child's death.
_LIMITS = (Verdict.TIMED_OUT, Verdict.OUT_OF_MEMORY)


def __getattr__(name: str) -> Any:
    """`SlotPool` used to be in this module; scripts that use the pool alone import it from here."""
    if name != "SlotPool":
        raise AttributeError(name)
    return import_module("skyward_dask.slots.executor").SlotPool


class Pool:
    """Runs calls in slots. For the loop on which it is made.

    Parameters
    ----------
    slots : int
        How many calls run at once.
    preparation : Preparation
        What children are given.
    segments : Segments or None
        Shared memory.
    helpers : concurrent.futures.Executor
        Threads for work that takes a while.
    max_tasks : int or None
        Each child is replaced after this many calls.
    grace : float
        Seconds between interrupting a call that is stopped and killing its child.
    eager : bool
        Start the children now; otherwise each when it is first needed.
    sink : Sink
        Takes what children write.
    on_event : callable
        Takes ``("start", "crash", "kill", "unhealthy", "replace" or "failed-start", slot, pid)``.
    """

    def __init__(
        self,
        slots: int,
        preparation: Preparation,
        segments: Segments | None,
        helpers: Executor,
        *,
        max_tasks: int | None,
        grace: float,
        eager: bool,
        sink: Sink,
        on_event: Callable[[str, int, int], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._helpers, self._max_tasks, self._on_event = helpers, max_tasks, on_event
        self._tasks = Tasks()
        self._open: set[Run] = set()  # from `start` to their ends
        self._is_closing = self._is_ending = False
        self._limits = Limits(helpers, self._tasks, self._end_run)
        self._few = FewChildren(loop, self._update)
        self._queue = RunQueue(slots, segments, helpers, self._tasks, self._finish, self._update)
        self._nursery = Nursery(loop, preparation, preparation.calls(), sink, helpers, self._buried)

        def new_child(index: int) -> ChildProcess:
            return ChildProcess(loop, index, sink, segments, self._take, self._slots.closed_its_socket)

        self._slots = Slots(
            slots, preparation, new_child, self._nursery, grace, eager, on_event, self._update
        )
        self._update()

    # --- a run begins --------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """Have a call run in a slot; `Run.when_over` reports its outcome.

        Raises
        ------
        PoolClosed
            The pool is shut down.

        Notes
        -----
        The outcome may be an error of `skyward_dask.errors`, `RunEnded`, or whatever the call raised.
        """
        if self._is_closing:
            raise PoolClosed("the pool is shut down and takes no more calls")
        self._open.add(run)
        self._queue.enter(run)

    def _update(self) -> None:
        """Settle the slots and begin waiting runs, until nothing is left to do."""
        while True:
            self._slots.settle()
            self._queue.admit()
            while self._may_begin and (run := self._queue.next()) is not None:
                self._begin(run)
            self._slots.want(len(self._queue))
            if self._slots.is_settled:
                return

    @property
    def _may_begin(self) -> bool:
        return bool(self._queue) and self._slots.has_idle and self._few.may_begin

    def _begin(self, run: Run) -> None:
        child = self._slots.take_idle(self._max_tasks)
        self._few.begun(run)
        child.begin(run)
        if run.has_limits:
            self._limits.watch(run)
            self._nursery.guard_limits()

    def secede(self, run: Run) -> None:
        """Let the run continue outside its slot, which gets another child."""
        if run.child is not None and run.slotted:
            self._queue.vacate(run)
            self._slots.free(run.child)
            self._update()

    def rejoin(self, run: Run) -> asyncio.Future[None]:
        """Wait for room among the slots; runs that have seceded come before those that wait to begin."""
        joined = self._queue.rejoin(run)
        self._update()
        return joined

    # --- a run ends ----------------------------------------------------------------------------------

    def stop(self, run: Run) -> bool:
        """Stop a run: raise KeyboardInterrupt in it; after the grace period, kill it and what it started.

        Returns whether its outcome will be `RunEnded`; False if it has ended, or is about to end otherwise.
        """
        if run.is_over or run.verdict is not None:
            return False
        run.verdict = Verdict.STOPPED
        if run.child is not None:
            self._end_run(run, run.child)
        else:
            self._finish(run, RunEnded(f"{run.key}: ended before it ran"))
        return True

    def _end_run(self, run: Run, child: ChildProcess) -> None:
        """Carry out a run's verdict."""
        self._slots.of(child).kills += 1
        self._on_event("kill", child.slot, child.pid)
        self._slots.apply(child, Event.STOP if run.verdict is Verdict.STOPPED else Event.LIMIT)
        self._update()

    def _ended(self, child: ChildProcess, ended: Ended, parts: Sequence[Part]) -> None:
        run, form = child.run, child.take(ended, parts)
        if run is not None:
            self._few.ended(run, ended.seconds)
            self._limits.heed(run, child)
        if run is None or run.verdict in _LIMITS:
            return  # the rest follows when the child dies
        request = run.request
        assert request is not None
        if request.report is not None and ended.report:
            request.report(*ended.report)
        child.part()
        self._queue.vacate(run)
        self._slots.of(child).tasks_done += 1
        if not child.is_healthy and not child.last:
            child.last = True
            self._on_event("unhealthy", child.slot, child.pid)
        self._slots.apply(child, Event.CHECK_IN)
        if run.verdict is not None:
            self._finish(run, error_of(run, child))
        elif ended.raised:
            self._finish(run, load_exception(form.inline))
        else:
            self._finish(run, form)
        self._update()

    def _lost(self, run: Run, child: ChildProcess) -> None:
        """The child that had the run is dead."""
        is_innocent = (child.orphaned or not child.has_begun) and not run.yields and run.raised is None
        self._few.lost(run)
        take_unsent(run, child)
        child.part()
        self._queue.vacate(run)
        if run.verdict is None and is_innocent and run.repeats < _REPEATS:
            self._queue.put_back(run)
        else:
            self._slots.of(child).tasks_done += 1
            self._finish(run, error_of(run, child))

    def _finish(self, run: Run, outcome: Form | BaseException) -> None:
        if not run.is_over:
            self._open.discard(run)
            self._limits.forget(run)
            run.finish(outcome)
            self._end_if_done()

    # --- what happens to children --------------------------------------------------------------------

    def _take(self, child: ChildProcess, frame: Frame) -> None:
        """A child has sent a frame."""
        match frame.message:
            case Ended() as ended:
                self._ended(child, ended, frame.parts)
            case Raised() if child.run is not None and child.run.verdict is None:
                child.run.raised = frame.parts
            case Ask() as asked:
                serve(child, asked, frame)
            case Item() as item:
                take_item(child, item, frame.parts)
            case Items(number):
                take_items(child.run, number, frame.parts[0])
            case Allocate(sizes):
                self._tasks.spawn(grant(child, frame.number, sizes, self._helpers))
            case Ready():
                self._slots.came_up(child)
                self._update()

    def _buried(self, child: ChildProcess) -> None:
        """A child is dead, with all that it started; or it couldn't be started."""
        run = child.run
        if run is not None:
            self._limits.heed(run, child)
            self._limits.end_look(run, child)
        failure = self._slots.buried(child)
        if run is not None:
            self._lost(run, child)
        child.close()
        if failure is not None:
            self._queue.fail(lambda: SlotStartFailed(*failure.args))
        self._update()

    # --- changing and looking ------------------------------------------------------------------------

    def resize(self, slots: int) -> None:
        """Change the number of slots; a slot that is removed finishes its run first."""
        self._queue.size = slots
        self._slots.resize(slots)
        self._update()

    def renew(self, backend_argument: bytes) -> None:
        """Replace every child, busy ones after their runs: what they know about this process is stale."""
        self._slots.renew(backend_argument)
        self._update()

    async def look(self, run: Run) -> str:
        """The stacks of all threads of a run's process, by faulthandler; empty if no process has the run."""
        return await run.child.stacks.look() if run.child is not None else ""

    async def wait_ready(self) -> None:
        """Wait until one child is ready; raises `SlotStartFailed` if none can start."""
        await self._slots.wait_ready()

    def snapshots(
        self, usage: Callable[[int], tuple[int, float]] = process_usage
    ) -> tuple[SlotStatistics, ...]:
        """The current state of each slot; `usage` returns a process's resident bytes and CPU seconds."""
        return tuple(slot.snapshot(usage) for slot in self._slots.present())

    def pids(self) -> list[int]:
        """The process ids of all children that are alive."""
        return [child.pid for child in self._slots.children if child.pid]

    def own_memory(self) -> int:
        """Bytes of the children's own pages, and of those of all processes that they started."""
        return sum(map(own_memory, self.pids()))

    # --- ending ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls, and end the children when the calls that were taken are done."""
        self._is_closing = True
        self._end_if_done()

    async def wait_closed(self) -> None:
        """Wait until no child is alive any more; after `close` or `end`."""
        await self._nursery.ended.wait()
        await self._tasks.wait()

    def end(self) -> None:
        """End the pool now: running calls are killed, and all open runs end with `RunEnded`."""
        self._is_closing = True
        for run in list(self._open):
            run.verdict = run.verdict or Verdict.POOL_ENDED
            if run.child is None:
                self._finish(run, RunEnded(f"{run.key}: {run.verdict.value}"))
        self._end_children()

    def _end_if_done(self) -> None:
        if self._is_closing and not self._open:
            self._end_children()

    def _end_children(self) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        self._queue.close()
        self._slots.end()
        self._update()
        self._nursery.end()
