"""`SlotPool`: a `concurrent.futures.Executor` over long-lived child processes that can die alone.

```
 caller's thread ── check out ──▶ slot ── ChildProcess.run ──▶ child
                 ◀─ check in ───       ◀─ result, error ──
 any thread      ── stop ───────▶ verdict ── interrupt, kill ─▶
 supervisor      ── starts, buries, replaces children; keeps deadlines and limits
```

A child belongs to a run, not to a thread: threads come and go. What is decided about a child stands in
`lifecycle`; `_settle` then has each slot hold a child that can work. The lock here guards slots, children
and runs while that is decided, and is never held during I/O that can block.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, replace
from typing import Any, ClassVar, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import psutil

from skyward_dask.errors import SlotCrashed, SlotOutOfMemory, SlotStartFailed, TaskTimeout
from skyward_dask.slots import segments as shared_memory
from skyward_dask.slots.backoff import Backoff
from skyward_dask.slots.callers import Callers
from skyward_dask.slots.channel import Kind, Part
from skyward_dask.slots.forms import Form
from skyward_dask.slots.lifecycle import Command, Event, State
from skyward_dask.slots.limits import own_memory, pause
from skyward_dask.slots.output import Sink
from skyward_dask.slots.pickling import dumps, load_exception, unpicklable
from skyward_dask.slots.preparation import Preparation, Setting
from skyward_dask.slots.process import ChildProcess, Lost
from skyward_dask.slots.runs import Request, Run, Verdict
from skyward_dask.slots.segments import Segments
from skyward_dask.slots.supervisor import Listener, Supervisor

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that an idle child has to leave by itself: most leave in 50 ms, and what an atexit function
#: does may take its time.
_LEAVE = 2.0
#: How often a run is given to another child because its own went through no fault of the run. A task that
#: kills the template each time would otherwise be run for ever; more than chance may take: arbitrary.
_REPEATS = 5
#: Bytes from which shared memory is faster than the socket, its round trip for a range included.
SHARE_FROM = 256 * 1024


class PoolClosed(RuntimeError):
    """The pool is shut down and takes no more calls."""


class RunEnded(CancelledError):
    """The run was stopped, or its pool was ended: it has no outcome of its own."""


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """One slot at one moment.

    Attributes
    ----------
    index : int
    state : str
        ``"vacant"`` or a `lifecycle.State` of its child: ``"starting"``, ``"idle"``, ``"busy"``, …
    pid : int or None
    task : str or None
        The key of the task that runs.
    tasks_done, crashes, kills : int
        Counted since the pool was made.
    memory : int
        Resident bytes of the child's process.
    cpu : float
        CPU seconds of the present child.
    """

    index: int
    state: str
    pid: int | None
    task: str | None
    tasks_done: int
    crashes: int
    kills: int
    memory: int
    cpu: float


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


def _ignore(*args: object) -> None:
    pass


class SlotPool(Executor):
    """Run calls in child processes: one call at a time in each, and a death harms its own call alone.

    Parameters
    ----------
    slots : int
        How many calls run at once.
    env : mapping of str to str or callable
        Added to the children's environment. ``"{slot}"`` in a value becomes the slot's index; a function as a
        value is called with it.
    pre_import : tuple of str
        Modules that each child imports before its first call.
    initializer : callable, optional
        Called in each child before its first call.
    health_check : callable, optional
        Called in the child after a call that raised; if it returns False or raises, the child is replaced.
    backend : str
        ``"module:function"``, called in each child first, with `backend_argument` and a `Link` by which
        the child's tasks can ask for things (`Request.serve`).
    backend_argument : bytes
    max_tasks : int, optional
        Each child is replaced after so many calls.
    grace : float
        Seconds between the interruption of a call that is stopped and its kill.
    eager : bool
        Start the children now; else each when it is first wanted.
    share_from : int or None
        Bytes from which a buffer (of a NumPy array, a DataFrame, …) goes through shared memory; None for
        never.
    segments : Segments, optional
        The shared memory of somebody else, in place of one of the pool's own.
    on_output : callable
        Takes ``(key, "stdout" or "stderr", line)``.
    on_text : callable
        Takes ``("stdout" or "stderr", text)``, as it comes.
    on_event : callable
        Takes ``("start", "crash", "kill", "unhealthy", "replace" or "failed-start", slot, pid)``.

    Raises
    ------
    SlotStartFailed
        From a call, when children can't start. `wait_ready` asks at once.

    Examples
    --------
    >>> with SlotPool(2) as pool:
    ...     pool.submit(pow, 2, 5).result()
    32

    Notes
    -----
    Thread-safe. In a script, use it under ``if __name__ == "__main__"`` or not: children don't import the
    script; functions of ``__main__`` travel by value.
    """

    def __init__(
        self,
        slots: int,
        *,
        env: Mapping[str, Setting] | None = None,
        pre_import: tuple[str, ...] = (),
        initializer: Callable[[], object] | None = None,
        health_check: Callable[[], object] | None = None,
        backend: str = "",
        backend_argument: bytes = b"",
        max_tasks: int | None = None,
        grace: float = 0.5,
        eager: bool = True,
        share_from: int | None = SHARE_FROM,
        segments: Segments | None = None,
        on_output: Callable[[str, str, str], None] = _ignore,
        on_text: Callable[[str, str], None] = _ignore,
        on_event: Callable[[str, int, int], None] = _ignore,
    ) -> None:
        if slots < 1:
            raise ValueError(f"a pool needs at least one slot, not {slots}")
        self._preparation = Preparation(
            env or {}, pre_import, initializer, backend, backend_argument, health_check
        )
        self._max_tasks, self._grace = max_tasks, grace
        self._sink, self._on_event = Sink(on_output, on_text), on_event
        self._changed = threading.Condition()
        self._slots = [_Slot(index, wanted=eager) for index in range(slots)]
        self._size = slots
        self._children: set[ChildProcess] = set()
        self._idle: list[_Slot] = []
        self._waiting = 0
        self._failures: list[SlotStartFailed] = []
        self._backoff = Backoff()
        self._open_calls = 0
        self._closing = False
        self._ended = threading.Event()
        self._callers = Callers(slots)
        self._own_segments = None if segments is not None else shared_memory.create(share_from)
        self._segments = segments or self._own_segments
        self._submitted: WeakKeyDictionary[Future[Any], Run] = WeakKeyDictionary()
        listener = Listener(self._ready, self._died, self._sink)
        self._supervisor = Supervisor(self._preparation, self._pickled_calls(), listener)
        with self._changed:
            for slot in self._slots:
                self._settle(slot)

    def _pickled_calls(self) -> list[Part]:
        calls = self._preparation.initializer, self._preparation.health_check
        try:
            return dumps(calls)
        except Exception as error:
            named = ("the initializer", calls[0]), ("the health check", calls[1])
            raise unpicklable(named, error) from error

    # --- running -----------------------------------------------------------------------------------

    def run(self, request: Request) -> Any:
        """Run a call in a slot, in the calling thread's time, and return its value.

        Raises
        ------
        SlotCrashed
            The child died while it ran the call.
        SlotOutOfMemory
            It had more memory than `Request.memory_limit`.
        TaskTimeout
            The call took longer than `Request.timeout`.
        SlotStartFailed
            No child can be started.
        SerializationError
            The call or its result can't be pickled.
        RunEnded
            The call was stopped, or the pool was ended meanwhile; a `concurrent.futures.CancelledError`.
        PoolClosed
            The pool is shut down.
        BaseException
            What the call raised.
        """
        return self.carry_out(Run(request))

    def carry_out(self, run: Run) -> Any:
        """The same as `run`, for a run that may be interrupted meanwhile."""
        return self.carry_out_to_form(run).load()

    def carry_out_to_form(self, run: Run) -> Form:
        """The same as `carry_out`, but with the value as its child has pickled it."""
        self._enter()
        try:
            return self._run(run)
        finally:
            self._leave()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a slot; see `concurrent.futures.Executor.submit`."""
        run = Run(Request(getattr(fn, "__qualname__", None) or repr(fn), fn, args, kwargs))
        self._enter()
        try:
            future: Future[T] = self._callers.submit(self._run_submitted, run)
        except BaseException:
            self._leave()
            raise
        self._submitted[future] = run
        future.add_done_callback(self._leave)
        return future

    def stop(self, future: Future[Any]) -> bool:
        """Cancel a call that waits, or stop one that runs: its result is a CancelledError.

        Returns whether that will be so; False: it has ended, or is about to.
        """
        return future.cancel() or self.interrupt(self._submitted[future])

    def interrupt(self, run: Run) -> bool:
        """Stop a run: KeyboardInterrupt first, and after the grace period a kill with all that it started."""
        with self._changed:
            return self._judge(run, Verdict.STOPPED)

    def secede(self, run: Run) -> None:
        """Let the run go on outside its slot, which gets another child."""
        with self._changed:
            child = run.child
            if child is not None and (slot := self._slots[child.slot]).child is child:
                slot.child = None
                self._settle(slot)

    def _run_submitted(self, run: Run) -> Any:
        return self._run(run).load()

    def _run(self, run: Run) -> Form:
        forms = run.request.pickled(self._segments)
        while True:
            child = self._check_out(run)
            reply, over = self._attempt(run, child, forms)
            if over:
                return self._outcome(run, child, reply)
            if run.request.again is not None:
                run.request.again()

    def _attempt(
        self, run: Run, child: ChildProcess, forms: tuple[Form, ...]
    ) -> tuple[tuple[Kind, Form] | None, bool]:
        """Carry out a run in a child.

        Returns
        -------
        reply : tuple or None
            The child's word, if it had one.
        over : bool
            Whether that is the end of the run; else another child is to have it.
        """
        reply, over = None, True
        try:
            reply = child.carry_out(run, forms)
        except Lost:
            self._supervisor.call(self._supervisor.expect_burial, child)
            child.died.wait()
            over = not self._is_repeated(run, child)
        finally:
            self._give_back(run, child, reply is not None, over)
        return reply, over

    def _is_repeated(self, run: Run, child: ChildProcess) -> bool:
        """Whether a run whose child has died is given to another: it was no fault of the run."""
        with self._changed:
            innocent = child.orphaned or not child.has_begun
            if run.verdict is not None or not innocent or run.repeats >= _REPEATS:
                run.done = True
                return False
            run.repeats += 1
            return True

    def _outcome(self, run: Run, child: ChildProcess, reply: tuple[Kind, Form] | None) -> Form:
        """What the caller gets; the first verdict stands, whatever the child still said."""
        if run.verdict is not None or reply is None:
            raise self._verdict_as_error(run, child)
        kind, form = reply
        if kind is Kind.ERROR:
            raise load_exception(form.inline)
        return form

    def _verdict_as_error(self, run: Run, child: ChildProcess) -> BaseException:
        request = run.request
        if run.verdict is Verdict.TIMED_OUT:
            assert request.timeout is not None
            return TaskTimeout(request.key, request.timeout, run.stack)
        if run.verdict in (Verdict.STOPPED, Verdict.POOL_ENDED):
            return RunEnded(f"{request.key}: {run.verdict.value}")
        child.died.wait()  # it was killed, or has died
        death = child.death
        assert death is not None
        crash = SlotCrashed(request.key, child.pid, death.exitcode, death.signal, death.stack, death.stderr)
        if run.verdict is Verdict.OUT_OF_MEMORY:
            assert request.memory_limit is not None
            return SlotOutOfMemory(crash, request.memory_limit, run.peak)
        return crash

    def _enter(self) -> None:
        with self._changed:
            if self._closing:
                raise PoolClosed("the pool is shut down and takes no more calls")
            self._open_calls += 1

    def _leave(self, _: object = None) -> None:
        with self._changed:
            self._open_calls -= 1
            if self._closing and not self._open_calls:
                self._close_children()

    def _check_out(self, run: Run) -> ChildProcess:
        with self._changed:
            seen = len(self._failures)
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: run.verdict is not None or self._can_proceed(seen))
            finally:
                self._waiting -= 1
            if self._ended.is_set() or run.verdict is not None:
                run.done = True
                raise RunEnded(f"{run.request.key}: ended before it ran")
            if not self._idle:
                run.done = True
                raise self._failures[-1]
            slot = self._idle.pop()
            assert slot.child is not None
            return self._begin(run, slot, slot.child)

    def _begin(self, run: Run, slot: _Slot, child: ChildProcess) -> ChildProcess:
        self._apply(child, Event.CHECK_OUT)
        child.expect()
        run.child, child.run = child, run
        if self._max_tasks is not None and child.runs_done + 1 >= self._max_tasks:
            child.last = True
            self._settle(slot)
        request = run.request
        if request.timeout is not None:
            self._supervisor.at(time.monotonic() + request.timeout, self._time_out, run, child)
        if request.memory_limit is not None:
            self._supervisor.call(self._check_memory, run, child)
        return child

    def _can_proceed(self, seen: int) -> bool:
        """Whether a caller has something to go on with; wants children where that may help."""
        if self._idle or self._ended.is_set():
            return True
        hopeless = [slot for slot in self._slots[: self._size] if slot.child is None]
        if len(self._failures) > seen:
            return len(hopeless) == self._size
        if self._count(State.STARTING) < self._waiting and hopeless:
            slot = hopeless[0]
            slot.wanted = True
            self._settle(slot)
        return False

    def _count(self, *states: State) -> int:
        return sum(slot.child is not None and slot.child.state in states for slot in self._slots)

    def _give_back(self, run: Run, child: ChildProcess, answered: bool, over: bool) -> None:
        slot = self._slots[child.slot]
        with self._changed:
            run.child = child.run = None
            run.done = over
            child.runs_done += 1
            if over:
                slot.tasks_done += 1
            if not child.is_healthy and not child.last:
                child.last = True
                self._supervisor.call(self._on_event, "unhealthy", child.slot, child.pid)
            if answered:
                self._apply(child, Event.CHECK_IN)
            if child.state is State.GONE:
                child.close()  # nobody else has it: its death left that to us

    # --- changing ----------------------------------------------------------------------------------

    def resize(self, slots: int) -> None:
        """Have so many slots; a run in one that is given up ends first."""
        if slots < 1:
            raise ValueError(f"a pool needs at least one slot, not {slots}")
        self._callers.resize(slots)
        with self._changed:
            self._size = slots
            self._slots += [_Slot(index, wanted=True) for index in range(len(self._slots), slots)]
            for slot in self._slots:
                slot.wanted = slot.index < slots
                self._settle(slot)
            self._changed.notify_all()

    def renew(self, backend_argument: bytes) -> None:
        """Replace every child, the busy ones after their runs: what they know of this process is stale."""
        with self._changed:
            self._preparation = replace(self._preparation, backend_argument=backend_argument)
            self._supervisor.call(self._supervisor.renew, self._preparation)
            for child in list(self._children):
                child.last = True
                if child.state is State.IDLE:
                    self._apply(child, Event.RETIRE)
                self._settle(self._slots[child.slot])

    # --- what is decided about a run ---------------------------------------------------------------

    def _judge(self, run: Run, verdict: Verdict) -> bool:
        """Give a verdict, unless the run has one or is done; with the lock held."""
        if run.done or run.verdict is not None:
            return False
        run.verdict = verdict
        child = run.child
        if child is None:
            self._changed.notify_all()  # it waits for a slot
            return True
        self._slots[child.slot].kills += 1
        self._supervisor.call(self._on_event, "kill", child.slot, child.pid)
        self._apply(child, Event.STOP if verdict is Verdict.STOPPED else Event.LIMIT)
        return True

    def _time_out(self, run: Run, child: ChildProcess) -> None:
        timeout = run.request.timeout
        assert timeout is not None
        with self._changed:
            if run.child is not child:
                return
            due = child.due(timeout)
        if due > time.monotonic():
            self._supervisor.at(due, self._time_out, run, child)
            return
        stack = child.stack()
        with self._changed:
            if run.child is child:
                run.stack = stack
                self._judge(run, Verdict.TIMED_OUT)

    def _check_memory(self, run: Run, child: ChildProcess) -> None:
        limit = run.request.memory_limit
        assert limit is not None
        with self._changed:
            if run.child is not child or run.verdict is not None:
                return
        used = own_memory(child.pid)
        if used <= limit:
            self._supervisor.at(time.monotonic() + pause(limit, used), self._check_memory, run, child)
            return
        with self._changed:
            if run.child is child:
                run.peak = used
                self._judge(run, Verdict.OUT_OF_MEMORY)

    def _overdue(self, child: ChildProcess, run: Run | None) -> None:
        """A child that was interrupted, or asked to leave, has had its time."""
        with self._changed:
            if child.run is run:
                self._apply(child, Event.LIMIT)

    # --- children come and go ----------------------------------------------------------------------

    def _apply(self, child: ChildProcess, event: Event) -> None:
        """Apply an event and carry its commands out; with the lock held."""
        for command in child.apply(event):
            self._carry_out[command](self, child)
        self._settle(self._slots[child.slot])

    def _settle(self, slot: _Slot) -> None:
        """Have the slot hold a child that can work, and start what it lacks; with the lock held."""
        if slot.child is not None and slot.child.state in (State.GONE, State.LEAVING):
            slot.child = None
        if slot.successor is not None and slot.successor.state in (State.GONE, State.LEAVING):
            slot.successor = None
        if slot.child is None:
            slot.child, slot.successor = slot.successor, None
        if not self._ended.is_set():
            self._retire_surplus(slot)
            self._spawn_missing(slot)
        is_idle = slot.child is not None and slot.child.state is State.IDLE
        if is_idle and not self._ended.is_set() and slot not in self._idle:
            self._idle.append(slot)
            self._changed.notify()
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
            slot.child = self._spawn(slot)
        elif slot.successor is None and _is_ending(slot.child):
            slot.successor = self._spawn(slot)

    def _spawn(self, slot: _Slot) -> ChildProcess:
        not_before = time.monotonic() + self._backoff.delay
        child = ChildProcess(slot.index, self._sink, self._segments, not_before)
        self._children.add(child)
        self._supervisor.call(self._supervisor.start, child)
        return child

    def _offer(self, child: ChildProcess) -> None:
        slot = self._slots[child.slot]
        if child.last or (slot.child is not child and slot.successor not in (None, child)):
            self._apply(child, Event.RETIRE)
        elif slot.child is not child:
            slot.successor = child  # it had seceded: so the next one that does finds a child ready

    def _interrupt(self, child: ChildProcess) -> None:
        child.interrupt()
        self._supervisor.at(time.monotonic() + self._grace, self._overdue, child, child.run)

    def _kill(self, child: ChildProcess) -> None:
        child.kill()
        if not child.pid:
            self._supervisor.call(self._supervisor.drop, child)

    def _dismiss(self, child: ChildProcess) -> None:
        child.close_gently()
        self._supervisor.at(time.monotonic() + _LEAVE, self._overdue, child, None)
        if child.last:
            self._supervisor.call(self._on_event, "replace", child.slot, child.pid)

    def _fail_start(self, child: ChildProcess) -> None:
        if child.orphaned:
            return  # its template was lost: it is simply started again
        self._backoff.fail()
        slot = self._slots[child.slot]
        slot.wanted = slot.wanted and slot.child is not child
        stderr = child.death.stderr if child.death else ""
        self._failures.append(
            child.failure
            or SlotStartFailed(
                f"the process of slot {child.slot} ended before it was ready: its pre_import or its "
                "initializer may have failed, or the machine may be short of memory or processes.",
                stderr,
            )
        )

    def _count_crash(self, child: ChildProcess) -> None:
        if not child.orphaned:
            self._slots[child.slot].crashes += 1

    _carry_out: ClassVar[dict[Command, Callable[[SlotPool, ChildProcess], None]]] = {
        Command.OFFER: _offer,
        Command.INTERRUPT: _interrupt,
        Command.KILL: _kill,
        Command.DISMISS: _dismiss,
        Command.REPORT_FAILED_START: _fail_start,
        Command.COUNT_CRASH: _count_crash,
    }

    def _ready(self, child: ChildProcess) -> None:
        with self._changed:
            self._backoff.succeed()
            self._apply(child, Event.READY)
        self._on_event("start", child.slot, child.pid)

    def _died(self, child: ChildProcess) -> None:
        with self._changed:
            before = child.state
            self._apply(child, Event.DIED)
            if child.run is None:
                child.close()
            self._children.discard(child)
            self._changed.notify_all()
        event = {State.STARTING: "failed-start", State.IDLE: "crash", State.BUSY: "crash"}.get(before)
        if event is not None and not child.orphaned:
            self._on_event(event, child.slot, child.pid)

    # --- looking -----------------------------------------------------------------------------------

    def stack(self, run: Run) -> str:
        """Where all threads of a run's process stand, as faulthandler says it; empty if none has the run."""
        child = run.child
        return child.stack() if child is not None else ""

    def wait_ready(self) -> None:
        """Wait until one child is ready; raises `SlotStartFailed` if none can be."""
        with self._changed:
            seen = len(self._failures)
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._count(State.BUSY) or self._can_proceed(seen))
            finally:
                self._waiting -= 1
            if not self._idle and not self._count(State.BUSY):
                raise self._failures[-1] if self._failures else CancelledError("the pool ended")

    def snapshots(self) -> tuple[SlotSnapshot, ...]:
        """The slots as they are."""
        with self._changed:
            children = [
                (slot, slot.child)
                for slot in self._slots
                if slot.index < self._size or slot.child is not None
            ]
            tasks = [child.run.request.key if child and child.run else None for _, child in children]
        return tuple(
            SlotSnapshot(
                slot.index,
                child.state.value if child else "vacant",
                child.pid or None if child else None,
                task,
                slot.tasks_done,
                slot.crashes,
                slot.kills,
                *_usage(child.pid if child else 0),
            )
            for (slot, child), task in zip(children, tasks, strict=True)
        )

    def own_memory(self) -> int:
        """Bytes of the children's own pages, with all that they started."""
        with self._changed:
            pids = [child.pid for child in self._children if child.pid]
        return sum(map(own_memory, pids))

    # --- ending ------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the children when those that were taken are done.

        Parameters
        ----------
        wait : bool
            Return when no child lives any more.
        cancel_futures : bool
            Cancel those that haven't begun.
        """
        with self._changed:
            self._closing = True
        self._callers.shutdown(wait=False)
        if cancel_futures:
            for future in list(self._submitted):
                future.cancel()  # without a lock: whoever wants to know is called back
        with self._changed:
            if not self._open_calls:
                self._close_children()
        if wait:
            self._callers.shutdown()
            self._await_end()

    def end(self) -> None:
        """End the pool now: running calls are killed and raise `concurrent.futures.CancelledError`."""
        with self._changed:
            self._closing = True
            self._close_children()
        self._callers.shutdown(wait=False)
        self._await_end()

    def _close_children(self) -> None:
        """End the children; with the lock held."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._idle.clear()
        for child in list(self._children):
            if child.run is not None and child.run.verdict is None:
                child.run.verdict = Verdict.POOL_ENDED
            self._apply(child, Event.CLOSE)
        self._changed.notify_all()
        self._supervisor.end()

    def _await_end(self) -> None:
        self._ended.wait()
        self._supervisor.thread.join()
        if self._own_segments is not None:
            self._own_segments.close()


def _is_ending(child: ChildProcess) -> bool:
    """Whether a child will not have another run."""
    return child.last or child.state in (State.STOPPING, State.KILLING)


def _usage(pid: int) -> tuple[int, float]:
    """Resident bytes and CPU seconds of a process; zeros for one that is gone."""
    if not pid:
        return 0, 0.0
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return process.memory_info().rss, times.user + times.system
    except psutil.Error:
        return 0, 0.0
