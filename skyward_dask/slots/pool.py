"""`Pool`: long-lived child processes that run one call at a time each, and that can die alone.

```
 start(run) ─ pickle ─▶ queue ─ a slot is free ─▶ child ─ RESULT ─▶ run.finish
 stop(run) ───────────▶ verdict ── interrupt, kill ─▶
 the nursery ─────────▶ children are there; children are dead
```

All of it lives on one event loop: what happens is an event there, and there is no lock and no thread for a
run. What is decided about a child stands in `lifecycle`; `_settle` then has each slot hold a child that can
work. What may take longer than a millisecond (pickling and copying large values, looking at processes) is
done in a few helper threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Executor
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar

from skyward_dask.errors import SlotCrashed, SlotOutOfMemory, SlotStartFailed, TaskTimeout
from skyward_dask.slots.aside import aside
from skyward_dask.slots.backoff import Backoff
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.framing import Frame, Kind, Part
from skyward_dask.slots.lifecycle import Command, Event, State
from skyward_dask.slots.limits import own_memory, pause
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.nursery import Nursery
from skyward_dask.slots.output import Sink
from skyward_dask.slots.pickling import dumps, load_exception, unpicklable
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.requests import serve
from skyward_dask.slots.runs import Run, Verdict
from skyward_dask.slots.statistics import SlotStatistics, process_usage

#: Seconds that an idle child has to leave by itself: most leave in 50 ms, and what an atexit function
#: does may take its time.
_LEAVE = 2.0
#: Seconds that a child's listener has to say where a run stands whose time is over: few, as a look that harms
#: the child is no loss here.
_HASTE = 0.3
#: How often a run is given to another child because its own went through no fault of the run. A task that
#: kills the template each time would otherwise be run for ever; more than chance may take: arbitrary.
_REPEATS = 5


def __getattr__(name: str) -> Any:
    """`SlotPool` was found here once."""
    if name != "SlotPool":
        raise AttributeError(name)
    return import_module("skyward_dask.slots.executor").SlotPool


class PoolClosed(RuntimeError):
    """The pool is shut down and takes no more calls."""


class RunEnded(CancelledError):
    """The run was stopped, or its pool was ended: it has no outcome of its own."""


@dataclass(slots=True, eq=False)
class _Slot:
    """An index, the child that holds it, and the one that comes next where that is known.

    `wanted`: a child is kept in it.
    """

    index: int
    wanted: bool
    child: ChildProcess | None = None
    successor: ChildProcess | None = None
    tasks_done: int = 0
    crashes: int = 0
    kills: int = 0


class Pool:
    """Children in slots. For the loop that it is made on.

    Parameters
    ----------
    slots : int
        How many calls run at once.
    preparation : Preparation
        What children are given.
    segments : Segments or None
        Shared memory.
    helpers : concurrent.futures.Executor
        Threads for what takes its time.
    max_tasks : int or None
        Each child is replaced after so many calls.
    grace : float
        Seconds between the interruption of a call that is stopped and its kill.
    eager : bool
        Start the children now; else each when it is first wanted.
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
        self._loop = asyncio.get_running_loop()
        self._preparation, self._segments, self._helpers = preparation, segments, helpers
        self._max_tasks, self._grace = max_tasks, grace
        self._sink, self._on_event = sink, on_event
        calls = _pickled_calls(preparation)
        self._nursery = Nursery(self._loop, preparation, calls, sink, helpers, self._buried)
        self._slots = [_Slot(index, wanted=eager) for index in range(slots)]
        self._size = slots
        self._children: set[ChildProcess] = set()
        self._idle: list[_Slot] = []
        self._unsettled = dict.fromkeys(self._slots)
        self._open: set[Run] = set()  # from `start` to their ends
        self._queue: deque[Run] = deque()  # pickled, and waiting for a slot
        self._rejoining: deque[tuple[Run, asyncio.Future[None]]] = deque()
        self._occupied = 0
        self._starting: list[asyncio.Future[None]] = []  # those who wait until a child is ready
        self._backoff = Backoff()
        self._limited: set[Run] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = self._is_ending = False
        self._update()

    # --- a run begins --------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """Have a call run in a slot; `Run.when_over` tells of its outcome.

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
        assert run.request is not None
        if run.request.is_large:
            self._spawn(self._pickle_aside(run))
        else:
            self._pickle(run)
            self._update()

    def _pickle(self, run: Run) -> None:
        assert run.request is not None
        try:
            run.forms = run.request.pickled(self._segments)
        except Exception as error:  # its caller sees it
            self._finish(run, error)
        else:
            self._queue.append(run)

    async def _pickle_aside(self, run: Run) -> None:
        assert run.request is not None
        try:
            forms = await aside(self._helpers, run.request.pickled, self._segments)
        except Exception as error:  # its caller sees it
            self._finish(run, error)
        else:
            if not run.is_over:
                run.forms = forms
                self._queue.append(run)
        self._update()

    def _begin(self, run: Run, slot: _Slot) -> None:
        child = slot.child
        assert child is not None
        self._occupy(run)
        self._apply(child, Event.CHECK_OUT)
        child.begin(run)
        child.last = child.last or child.runs_done + 1 == self._max_tasks
        if run.timeout is not None:
            run.deadline = self._loop.call_later(run.timeout, self._time_out, run)
        if run.memory_limit is not None:
            self._limit_memory(run)

    def _may_begin(self, run: Run) -> bool:
        if run.may_begin is None or run.may_begin():
            return True
        self._finish(run, RunEnded(f"{run.key}: cancelled before it ran"))
        return False

    def _occupy(self, run: Run) -> None:
        run.slotted = True
        self._occupied += 1

    def _vacate(self, run: Run) -> None:
        if run.slotted:
            run.slotted = False
            self._occupied -= 1

    def secede(self, run: Run) -> None:
        """Let the run go on outside its slot, which gets another child."""
        child = run.child
        if child is not None and run.slotted:
            self._vacate(run)
            slot = self._slots[child.slot]
            if slot.child is child:
                slot.child = None
                self._unsettled[slot] = None
            self._update()

    def rejoin(self, run: Run) -> asyncio.Future[None]:
        """Wait for room among the slots; who has seceded comes before those that wait to begin."""
        joined: asyncio.Future[None] = self._loop.create_future()
        if run.slotted:
            joined.set_result(None)
        else:
            self._rejoining.append((run, joined))
            self._update()
        return joined

    # --- a run ends ----------------------------------------------------------------------------------

    def stop(self, run: Run) -> bool:
        """Stop a run: KeyboardInterrupt first, and after the grace period a kill with all that it started.

        Returns whether its outcome will be `RunEnded`; False: it has ended, or is about to otherwise.
        """
        if run.is_over or run.verdict is not None:
            return False
        run.verdict = Verdict.STOPPED
        if run.child is not None:
            self._end_run(run, run.child)
            self._update()
        else:
            self._finish(run, RunEnded(f"{run.key}: ended before it ran"))
        return True

    def _end_run(self, run: Run, child: ChildProcess) -> None:
        """Carry out a run's verdict."""
        self._slots[child.slot].kills += 1
        self._on_event("kill", child.slot, child.pid)
        self._apply(child, Event.STOP if run.verdict is Verdict.STOPPED else Event.LIMIT)

    def _time_out(self, run: Run) -> None:
        child, timeout = run.child, run.timeout
        assert child is not None and timeout is not None
        if (due := child.due(timeout)) > self._loop.time():
            run.deadline = self._loop.call_at(due, self._time_out, run)
        elif run.verdict is None:
            run.verdict = Verdict.TIMED_OUT  # first: whatever the look does to the task, its result is void
            self._spawn(self._look_and_end(run, child))

    async def _look_and_end(self, run: Run, child: ChildProcess) -> None:
        run.stack = await child.look(_HASTE)
        if run.child is child:
            self._end_run(run, child)
            self._update()

    def _limit_memory(self, run: Run) -> None:
        self._limited.add(run)
        if len(self._limited) == 1:
            self._spawn(self._watch_memory())

    async def _watch_memory(self) -> None:
        """Look at all runs that have a limit, as long as there are any."""
        while self._limited:
            looked = {run: run.child.pid for run in self._limited if run.child is not None}
            used = await aside(self._helpers, _measured, list(looked.values()))
            shortest = 1.0
            for (run, pid), size in zip(looked.items(), used, strict=True):
                limit = run.memory_limit
                assert limit is not None
                child = run.child
                if size > limit and child is not None and child.pid == pid and run.verdict is None:
                    run.verdict, run.peak = Verdict.OUT_OF_MEMORY, size
                    self._end_run(run, child)
                shortest = min(shortest, pause(limit, size))
            self._limited = {run for run in self._limited if not run.is_over and run.verdict is None}
            self._update()
            await asyncio.sleep(shortest)

    def _answered(self, child: ChildProcess, frame: Frame) -> None:
        run, form = child.run, child.take(frame)
        if run is None or run.verdict in _LIMITS:
            return  # its death says the rest
        request = run.request
        assert request is not None
        if request.report is not None and frame.envelope and frame.envelope[0]:
            request.report(*frame.envelope[0])
        self._part(run, child)
        self._slots[child.slot].tasks_done += 1
        if not child.is_healthy and not child.last:
            child.last = True
            self._on_event("unhealthy", child.slot, child.pid)
        self._apply(child, Event.CHECK_IN)
        if run.verdict is not None:
            self._finish(run, self._verdict_as_error(run, child))
        elif frame.kind is Kind.ERROR:
            self._finish(run, load_exception(form.inline))
        else:
            self._finish(run, form)
        self._update()

    def _lost(self, run: Run, child: ChildProcess) -> None:
        """The child that had the run is dead."""
        innocent = child.orphaned or not child.has_begun
        self._part(run, child)
        if run.verdict is None and innocent and run.repeats < _REPEATS:
            run.repeats += 1
            assert run.request is not None
            if run.request.again is not None:
                run.request.again()
            self._queue.appendleft(run)
        else:
            self._slots[child.slot].tasks_done += 1
            self._finish(run, self._verdict_as_error(run, child))

    def _part(self, run: Run, child: ChildProcess) -> None:
        """The child has the run no more."""
        run.child = child.run = None
        run.cancel_deadline()
        child.runs_done += 1
        self._vacate(run)

    def _verdict_as_error(self, run: Run, child: ChildProcess) -> BaseException:
        if run.verdict is Verdict.TIMED_OUT:
            assert run.timeout is not None
            return TaskTimeout(run.key, run.timeout, run.stack)
        if run.verdict in (Verdict.STOPPED, Verdict.POOL_ENDED):
            return RunEnded(f"{run.key}: {run.verdict.value}")
        death = child.death
        assert death is not None
        crash = SlotCrashed(run.key, child.pid, death.exitcode, death.signal, death.stack, death.stderr)
        if run.verdict is Verdict.OUT_OF_MEMORY:
            assert run.memory_limit is not None
            return SlotOutOfMemory(crash, run.memory_limit, run.peak)
        return crash

    def _finish(self, run: Run, outcome: Form | BaseException) -> None:
        if not run.is_over:
            self._open.discard(run)
            self._limited.discard(run)
            run.finish(outcome)
            self._end_if_done()

    # --- what a child says ---------------------------------------------------------------------------

    def _take(self, child: ChildProcess, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULT | Kind.ERROR:
                self._answered(child, frame)
            case Kind.REQUEST:
                serve(child, frame)
            case Kind.ALLOCATE:
                self._spawn(self._grant(child, frame))
            case Kind.READY:
                self._came_up(child)

    async def _grant(self, child: ChildProcess, frame: Frame) -> None:
        # housekeeping may hold the lock of the shared memory for as long as pages take to go
        try:
            taken = await aside(self._helpers, child.lender.allocate, frame.envelope)
        except Exception as error:  # the task's: the child raises it
            child.lender.refuse(child.runs, frame.number, error)
        else:
            child.lender.grant(child.runs, frame.number, taken)

    def _closed_its_socket(self, child: ChildProcess) -> None:
        """A death, or a child that has closed its sockets: then this makes it one.

        A process that is exiting already keeps its exit code.
        """
        if child.death is None and child.state is not State.LEAVING:
            child.kill()
            self._nursery.expect_burial(child)

    def _came_up(self, child: ChildProcess) -> None:
        self._backoff.succeed()
        child.cancel_timers()
        self._apply(child, Event.READY)
        self._on_event("start", child.slot, child.pid)
        for waiting in self._starting:
            if not waiting.done():
                waiting.set_result(None)
        self._starting.clear()
        self._update()

    def _buried(self, child: ChildProcess) -> None:
        """A child is dead, with all that it started; or it couldn't be started."""
        before = child.state
        self._children.discard(child)
        self._apply(child, Event.DIED)
        if (run := child.run) is not None:
            self._lost(run, child)
        child.close()
        event = {State.STARTING: "failed-start", State.IDLE: "crash", State.BUSY: "crash"}.get(before)
        if event is not None and not child.orphaned:
            self._on_event(event, child.slot, child.pid)
        if before is State.STARTING and not child.orphaned:
            self._give_up_if_hopeless(_failure(child))
        self._update()

    def _give_up_if_hopeless(self, failure: SlotStartFailed) -> None:
        """Tell all that wait for a child, if none is there and none is on its way."""
        children = (child for slot in self._slots[: self._size] for child in (slot.child, slot.successor))
        if any(child is not None and child.state not in _AWAY for child in children):
            return
        for waiting in self._starting:
            if not waiting.done():
                waiting.set_exception(failure)
        self._starting.clear()
        queue, self._queue = self._queue, deque()
        for run in queue:
            self._finish(run, SlotStartFailed(*failure.args))

    # --- children come and go ------------------------------------------------------------------------

    def _update(self) -> None:
        """Bring slots in order and have waiting runs begin, until nothing is left to be done."""
        while True:
            while self._unsettled:
                self._settle(self._unsettled.popitem()[0])
            self._dispatch()
            if not self._unsettled:
                return

    def _dispatch(self) -> None:
        """Give waiting runs to idle children, and want more of these where that may help."""
        while self._rejoining and self._occupied < self._size:
            run, joined = self._rejoining.popleft()
            if run.child is not None and not joined.done():
                self._occupy(run)
                joined.set_result(None)
        while self._queue and self._idle and self._occupied < self._size:
            run = self._queue.popleft()
            if not run.is_over and self._may_begin(run):
                self._begin(run, self._idle.pop())
        if not self._is_ending and (wanted := len(self._queue) or len(self._starting)):
            self._want(wanted)

    def _want(self, count: int) -> None:
        """Have so many children on their way, if there are slots without one."""
        slots = self._slots[: self._size]
        count -= sum(slot.child is not None and slot.child.state is State.STARTING for slot in slots)
        for slot in slots:
            if count > 0 and slot.child is None and not slot.wanted:
                count -= 1
                slot.wanted = True
                self._unsettled[slot] = None

    def _apply(self, child: ChildProcess, event: Event) -> None:
        """Apply an event and carry out what follows from it."""
        events = [event]
        while events:
            for command in child.apply(events.pop()):
                events += self._carry_out[command](self, child)
        self._unsettled[self._slots[child.slot]] = None

    def _settle(self, slot: _Slot) -> None:
        """Have the slot hold a child that can work, and start what it lacks."""
        if slot.child is not None and slot.child.state in _AWAY:
            slot.child = None
        if slot.successor is not None and slot.successor.state in _AWAY:
            slot.successor = None
        if slot.child is None:
            slot.child, slot.successor = slot.successor, None
        if not self._is_ending:
            self._retire_surplus(slot)
            self._spawn_missing(slot)
        is_idle = slot.child is not None and slot.child.state is State.IDLE and not self._is_ending
        if is_idle and slot not in self._idle:
            self._idle.append(slot)
        elif not is_idle and slot in self._idle:
            self._idle.remove(slot)

    def _retire_surplus(self, slot: _Slot) -> None:
        """End what a slot above the pool's size has, but for a run that is under way."""
        if slot.index < self._size:
            return
        for child in (slot.successor, slot.child):
            if child is not None and child.state in (State.IDLE, State.STARTING):
                self._apply(child, Event.RETIRE)

    def _spawn_missing(self, slot: _Slot) -> None:
        if not slot.wanted:
            return
        if slot.child is None:
            slot.child = self._new_child(slot)
        elif slot.successor is None and _is_ending(slot.child):
            slot.successor = self._new_child(slot)

    def _new_child(self, slot: _Slot) -> ChildProcess:
        child = ChildProcess(
            self._loop, slot.index, self._sink, self._segments, self._take, self._closed_its_socket
        )
        self._children.add(child)
        self._nursery.start(child, self._backoff.delay)
        return child

    # what commands do; each returns the events that follow

    def _offer(self, child: ChildProcess) -> tuple[Event, ...]:
        slot = self._slots[child.slot]
        if child.last or (slot.child is not child and slot.successor not in (None, child)):
            return (Event.RETIRE,)
        if slot.child is not child:
            slot.successor = child  # it had seceded: so the next one that does finds a child ready
        return ()

    def _interrupt(self, child: ChildProcess) -> tuple[Event, ...]:
        child.interrupt()
        child.later(self._grace, self._overdue, child, child.run)
        return ()

    def _overdue(self, child: ChildProcess, run: Run | None) -> None:
        """A child that was interrupted, or asked to leave, has had its time."""
        if child.run is run:
            self._apply(child, Event.LIMIT)
            self._update()

    def _kill(self, child: ChildProcess) -> tuple[Event, ...]:
        child.kill()
        if not child.pid:
            self._nursery.drop(child)
        return ()

    def _dismiss(self, child: ChildProcess) -> tuple[Event, ...]:
        child.close_gently()
        child.later(_LEAVE, self._overdue, child, None)
        if child.last:
            self._on_event("replace", child.slot, child.pid)
        return ()

    def _fail_start(self, child: ChildProcess) -> tuple[Event, ...]:
        if not child.orphaned:  # else its template was lost: it is simply started again
            self._backoff.fail()
            slot = self._slots[child.slot]
            slot.wanted = slot.wanted and slot.child is not child
        return ()

    def _count_crash(self, child: ChildProcess) -> tuple[Event, ...]:
        if not child.orphaned:
            self._slots[child.slot].crashes += 1
        return ()

    _carry_out: ClassVar[dict[Command, Callable[[Pool, ChildProcess], tuple[Event, ...]]]] = {
        Command.OFFER: _offer,
        Command.INTERRUPT: _interrupt,
        Command.KILL: _kill,
        Command.DISMISS: _dismiss,
        Command.REPORT_FAILED_START: _fail_start,
        Command.COUNT_CRASH: _count_crash,
    }

    # --- changing --------------------------------------------------------------------------------------

    def resize(self, slots: int) -> None:
        """Have so many slots; a run in one that is given up ends first."""
        self._size = slots
        self._slots += [_Slot(index, wanted=True) for index in range(len(self._slots), slots)]
        for slot in self._slots:
            slot.wanted = slot.index < slots
            self._unsettled[slot] = None
        self._update()

    def renew(self, backend_argument: bytes) -> None:
        """Replace every child, the busy ones after their runs: what they know of this process is stale."""
        self._preparation = replace(self._preparation, backend_argument=backend_argument)
        self._nursery.renew(self._preparation)
        for child in list(self._children):
            child.last = True
            if child.state is State.IDLE:
                self._apply(child, Event.RETIRE)
            self._unsettled[self._slots[child.slot]] = None
        self._update()

    # --- looking ---------------------------------------------------------------------------------------

    async def look(self, run: Run) -> str:
        """Where all threads of a run's process stand, as faulthandler says it; empty if none has the run."""
        return await run.child.look() if run.child is not None else ""

    async def wait_ready(self) -> None:
        """Wait until one child is ready; raises `SlotStartFailed` if none can be."""
        if any(child.state in (State.IDLE, State.BUSY) for child in self._children):
            return
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._starting.append(waiting)
        self._update()
        await waiting

    def snapshots(
        self, usage: Callable[[int], tuple[int, float]] = process_usage
    ) -> tuple[SlotStatistics, ...]:
        """The slots as they are; `usage` is asked for a process's resident bytes and CPU seconds."""
        slots = [slot for slot in self._slots if slot.index < self._size or slot.child is not None]
        return tuple(_snapshot(slot, usage) for slot in slots)

    def pids(self) -> list[int]:
        """The processes of all children that live."""
        return [child.pid for child in self._children if child.pid]

    def own_memory(self) -> int:
        """Bytes of the children's own pages, with all that they started."""
        return sum(map(own_memory, self.pids()))

    # --- ending ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls, and end the children when those that were taken are done."""
        self._is_closing = True
        self._end_if_done()

    async def wait_closed(self) -> None:
        """Wait until no child lives any more; after `close` or `end`."""
        await self._nursery.ended.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def end(self) -> None:
        """End the pool now: running calls are killed, and all that are open end with `RunEnded`."""
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
        for waiting in (*self._starting, *(joined for _, joined in self._rejoining)):
            waiting.cancel()
        for child in list(self._children):
            self._apply(child, Event.CLOSE)
        self._update()
        self._nursery.end()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


#: Verdicts that end a run by its child's death.
_LIMITS = (Verdict.TIMED_OUT, Verdict.OUT_OF_MEMORY)
_AWAY = (State.GONE, State.LEAVING)


def _pickled_calls(preparation: Preparation) -> list[Part]:
    initializer, health_check = calls = preparation.initializer, preparation.health_check
    try:
        return dumps(calls)
    except Exception as error:
        named = ("the initializer", initializer), ("the health check", health_check)
        raise unpicklable(named, error) from error


def _measured(pids: list[int]) -> list[int]:
    return list(map(own_memory, pids))


def _is_ending(child: ChildProcess) -> bool:
    """Whether a child will not have another run."""
    return child.last or child.state in (State.STOPPING, State.KILLING)


def _failure(child: ChildProcess) -> SlotStartFailed:
    """Why a child was never ready."""
    return child.failure or SlotStartFailed(
        f"the process of slot {child.slot} ended before it was ready: its pre_import or its initializer may "
        "have failed, or the machine may be short of memory or processes.",
        child.death.stderr if child.death else "",
    )


def _snapshot(slot: _Slot, usage: Callable[[int], tuple[int, float]]) -> SlotStatistics:
    child = slot.child
    return SlotStatistics(
        slot.index,
        child.state.value if child else "vacant",
        child.pid or None if child else None,
        child.run.key if child and child.run else None,
        slot.tasks_done,
        slot.crashes,
        slot.kills,
        *(usage(child.pid) if child and child.pid else (0, 0.0)),
    )
