"""`SlotPool`: a `concurrent.futures.Executor` over long-lived child processes that can die alone.

```
 caller's thread ── check out ──▶ slot ── ChildProcess.run ──▶ child
                 ◀─ check in ───       ◀─ result, error ──
 supervisor      ── starts, reaps, replaces children; applies lifecycle.TABLE
```

A child belongs to a run, not to a thread: threads come and go. What is decided stands in `lifecycle`; the
lock here guards the slots while an event is applied, and is never held during I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, field
from typing import Any, ClassVar, ParamSpec, TypeVar

import psutil

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots import segments as shared_memory
from skyward_dask.slots.callers import Callers
from skyward_dask.slots.channel import Part
from skyward_dask.slots.forms import Form
from skyward_dask.slots.lifecycle import Command, Event, Life, State
from skyward_dask.slots.output import Sink
from skyward_dask.slots.pickling import dumps, unpicklable
from skyward_dask.slots.process import ChildProcess, Ended, NotBegun, Preparation, Request
from skyward_dask.slots.segments import Segments
from skyward_dask.slots.supervisor import Supervisor

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that idle children have to leave by themselves when the pool closes: most leave in 50 ms, and
#: what an atexit function does may take its time.
_LEAVE = 2.0
#: Bytes from which shared memory is faster than the socket, its round trip for a range included.
SHARE_FROM = 256 * 1024


class PoolClosed(RuntimeError):
    """The pool is shut down and takes no more calls."""


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """One slot at one moment.

    Attributes
    ----------
    index : int
    state : str
        ``"vacant"``, ``"starting"``, ``"idle"``, ``"busy"`` or ``"killing"``.
    pid : int or None
    task : str or None
        The key of the task that runs.
    tasks_done, crashes : int
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
    memory: int
    cpu: float


@dataclass(slots=True, eq=False)
class _Slot:
    index: int
    life: Life = field(default_factory=Life)
    child: ChildProcess | None = None
    task: str | None = None
    tasks_done: int = 0
    crashes: int = 0


def _discard(key: str, stream: str, line: str) -> None:
    pass


def _ignore(event: str, slot: int, pid: int) -> None:
    pass


class SlotPool(Executor):
    """Run calls in child processes: one call at a time in each, and a death harms its own call alone.

    Parameters
    ----------
    slots : int
        How many calls run at once.
    env : mapping of str to str
        Added to the children's environment; ``"{slot}"`` in a value becomes the slot's index.
    pre_import : tuple of str
        Modules that each child imports before its first call.
    initializer : callable, optional
        Called in each child before its first call.
    backend : str
        ``"module:function"``, called in each child first, with `backend_argument` and a `Link` by which
        the child's tasks can ask for things (`Request.serve`).
    backend_argument : bytes
    eager : bool
        Start the children now; else each when it is first wanted.
    share_from : int or None
        Bytes from which a buffer (of a NumPy array, a DataFrame, …) goes through shared memory; None for
        never.
    segments : Segments, optional
        The shared memory of somebody else, in place of one of the pool's own.
    on_output : callable
        Takes ``(key, "stdout" or "stderr", line)``.
    on_event : callable
        Takes ``("start", "crash" or "failed-start", slot, pid)``.

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
        env: Mapping[str, str] | None = None,
        pre_import: tuple[str, ...] = (),
        initializer: Callable[[], object] | None = None,
        backend: str = "",
        backend_argument: bytes = b"",
        eager: bool = True,
        share_from: int | None = SHARE_FROM,
        segments: Segments | None = None,
        on_output: Sink = _discard,
        on_event: Callable[[str, int, int], None] = _ignore,
    ) -> None:
        if slots < 1:
            raise ValueError(f"a pool needs at least one slot, not {slots}")
        self._preparation = Preparation(env or {}, pre_import, initializer, backend, backend_argument)
        self._initializer = self._pickled_initializer()
        self._sink, self._on_event = on_output, on_event
        self._changed = threading.Condition()
        self._slots = [_Slot(index) for index in range(slots)]
        self._idle: list[_Slot] = []
        self._waiting = 0
        self._failures: list[SlotStartFailed] = []
        self._open_calls = 0
        self._closing = False
        self._ended = threading.Event()
        self._callers = Callers(slots, self._value, self._leave)
        self._own_segments = None if segments is not None else shared_memory.create(share_from)
        self._segments = segments or self._own_segments
        self._supervisor = Supervisor(self._ready, self._died)
        if eager:
            with self._changed:
                for slot in self._slots:
                    self._apply(slot, Event.WANT)

    def _pickled_initializer(self) -> list[Part]:
        if self._preparation.initializer is None:
            return []
        try:
            return dumps(self._preparation.initializer)
        except Exception as error:
            raise unpicklable([("the initializer", self._preparation.initializer)], error) from error

    # --- running -----------------------------------------------------------------------------------

    def run(self, request: Request) -> Any:
        """Run a call in a slot, in the calling thread's time, and return its value.

        Raises
        ------
        SlotCrashed
            The child died while it ran the call.
        SlotStartFailed
            No child can be started.
        SerializationError
            The call or its result can't be pickled.
        concurrent.futures.CancelledError
            The pool was ended meanwhile.
        PoolClosed
            The pool is shut down.
        BaseException
            What the call raised.
        """
        return self.run_to_form(request).load()

    def run_to_form(self, request: Request) -> Form:
        """Like `run`, but return the value as its child has pickled it."""
        self._enter()
        try:
            return self._run(request)
        finally:
            self._leave()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a slot; see `concurrent.futures.Executor.submit`."""
        self._enter()
        name = getattr(fn, "__qualname__", None) or repr(fn)
        return self._callers.submit(Request(name, fn, args, kwargs))

    def _value(self, request: Request) -> Any:
        return self._run(request).load()

    def _run(self, request: Request) -> Form:
        forms = request.pickled(self._segments)
        while True:
            slot, child = self._check_out(request.key)
            try:
                return child.run(request, forms)
            except NotBegun:
                continue
            except Ended:
                raise CancelledError("the pool ended while the call ran") from None
            finally:
                self._give_back(slot, child)

    def _enter(self) -> None:
        with self._changed:
            if self._closing:
                raise PoolClosed("the pool is shut down and takes no more calls")
            self._open_calls += 1

    def _leave(self) -> None:
        with self._changed:
            self._open_calls -= 1
            if self._closing and not self._open_calls:
                self._close_slots()

    def _check_out(self, key: str) -> tuple[_Slot, ChildProcess]:
        with self._changed:
            if not self._idle:
                self._wait_for_slot()
            if self._ended.is_set():
                raise CancelledError("the pool ended before the call ran")
            if not self._idle:
                raise self._failures[-1]
            slot = self._idle.pop()
            self._apply(slot, Event.CHECK_OUT)
            slot.task = key
            assert slot.child is not None
            return slot, slot.child

    def _wait_for_slot(self) -> None:
        seen = len(self._failures)
        self._waiting += 1
        try:
            self._changed.wait_for(lambda: self._can_proceed(seen))
        finally:
            self._waiting -= 1

    def _can_proceed(self, seen: int) -> bool:
        """Whether a caller has something to go on with; wants children where that may help."""
        if self._idle or self._ended.is_set():
            return True
        if len(self._failures) > seen and not self._count(State.BUSY, State.STARTING):
            return True
        if len(self._failures) == seen and self._count(State.STARTING) < self._waiting:
            vacant = (slot for slot in self._slots if slot.life.state is State.VACANT)
            if (slot := next(vacant, None)) is not None:
                self._apply(slot, Event.WANT)
        return False

    def _count(self, *states: State) -> int:
        return sum(slot.life.state in states for slot in self._slots)

    def _give_back(self, slot: _Slot, child: ChildProcess) -> None:
        with self._changed:
            slot.task = None
            slot.tasks_done += 1
            if child.died.is_set():
                child.close()  # nobody else has it: its death left that to us
            elif not child.killed:
                self._apply(slot, Event.CHECK_IN, child.generation)

    # --- a slot's events -------------------------------------------------------------------------

    def _apply(self, slot: _Slot, event: Event, generation: int | None = None) -> None:
        """Apply an event and carry its commands out; with the lock held."""
        now = slot.life.generation if generation is None else generation
        for command in slot.life.apply(event, now):
            self._carry_out[command](self, slot)

    def _spawn(self, slot: _Slot) -> None:
        self._supervisor.call(self._start_child, slot, slot.life.generation)

    def _offer(self, slot: _Slot) -> None:
        self._idle.append(slot)
        self._changed.notify()

    def _fail_start(self, slot: _Slot) -> None:
        child = slot.child
        stderr = child.death.stderr if child and child.death else ""
        self._failures.append(
            SlotStartFailed(
                f"the process of slot {slot.index} ended before it was ready: its pre_import or its "
                "initializer may have failed, or the machine may be short of memory or processes.",
                stderr,
            )
        )
        self._changed.notify_all()

    def _count_crash(self, slot: _Slot) -> None:
        slot.crashes += 1

    def _kill(self, slot: _Slot) -> None:
        child = slot.child
        if child is None:
            return  # it is about to be started: `_start_child` sees the state
        child.unwanted = True
        if slot.task is None:
            child.close_gently()
        else:
            child.kill()

    _carry_out: ClassVar[dict[Command, Callable[[SlotPool, _Slot], None]]] = {
        Command.SPAWN: _spawn,
        Command.OFFER: _offer,
        Command.REPORT_FAILED_START: _fail_start,
        Command.COUNT_CRASH: _count_crash,
        Command.KILL: _kill,
    }

    def _start_child(self, slot: _Slot, generation: int) -> None:
        """Start the child of a slot; in the supervisor's thread."""
        try:
            child = ChildProcess(slot.index, generation, self._preparation, self._sink, self._segments)
        except OSError as error:
            self._failed_to_fork(slot, generation, error)
            return
        with self._changed:
            slot.child = child
            child.unwanted = slot.life.state is State.KILLING
        self._supervisor.watch(child)
        child.prepare(self._preparation, self._initializer)
        if child.unwanted:  # the pool was closed while nobody could be killed yet
            child.kill()

    def _failed_to_fork(self, slot: _Slot, generation: int, error: OSError) -> None:
        with self._changed:
            slot.child = None
            self._apply(slot, Event.DIED, generation)
            self._failures.append(SlotStartFailed(f"no process can be started for a slot: {error!r}"))
            self._changed.notify_all()

    def _ready(self, child: ChildProcess) -> None:
        with self._changed:
            self._apply(self._slots[child.slot], Event.READY, child.generation)
        self._on_event("start", child.slot, child.pid)

    def _died(self, child: ChildProcess) -> None:
        slot = self._slots[child.slot]
        with self._changed:
            before = slot.life.state
            if slot in self._idle:
                self._idle.remove(slot)
            self._apply(slot, Event.DIED, child.generation)
            if slot.task is None:
                child.close()
            self._changed.notify_all()
        if before is not State.KILLING:
            event = "failed-start" if before is State.STARTING else "crash"
            self._on_event(event, child.slot, child.pid)

    # --- looking -----------------------------------------------------------------------------------

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
            slots = [
                (slot, slot.life.state.value, slot.child.pid if slot.child else None, slot.task)
                for slot in self._slots
            ]
        return tuple(
            SlotSnapshot(slot.index, state, pid, task, slot.tasks_done, slot.crashes, *_usage(pid))
            for slot, state, pid, task in slots
        )

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
            closed_before, self._closing = self._closing, True
        if cancel_futures:
            self._callers.cancel()
        if not closed_before:
            self._callers.end()
        with self._changed:
            if not self._open_calls:
                self._close_slots()
        if wait:
            self._callers.join()
            self._await_end()

    def end(self) -> None:
        """End the pool now: running calls are killed and raise `concurrent.futures.CancelledError`."""
        with self._changed:
            closed_before, self._closing = self._closing, True
            self._close_slots()
        if not closed_before:
            self._callers.end()
        self._await_end()

    def _close_slots(self) -> None:
        """End the children; with the lock held."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._idle.clear()
        for slot in self._slots:
            self._apply(slot, Event.CLOSE)
        self._changed.notify_all()
        self._supervisor.end()

    def _await_end(self) -> None:
        self._ended.wait()
        with self._changed:
            gone = self._changed.wait_for(lambda: not self._count(State.KILLING), timeout=_LEAVE)
            if not gone:  # an atexit function or a thread holds on: it had its time
                for slot in self._slots:
                    if slot.child is not None:
                        slot.child.kill()
        self._supervisor.thread.join()
        if self._own_segments is not None:
            self._own_segments.close()


def _usage(pid: int | None) -> tuple[int, float]:
    """Resident bytes and CPU seconds of a process; zeros for one that is gone."""
    if pid is None:
        return 0, 0.0
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return process.memory_info().rss, times.user + times.system
    except psutil.Error:
        return 0, 0.0
