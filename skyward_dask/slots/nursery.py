"""Where children come from and where they end: templates start them and tell of their deaths.

```
 pool ── start(child) ──▶ Nursery ── FORK ──▶ template ──▶ children
      ◀─── on_buried ───          ◀─ EXITED ─
```

A template that is killed, or that doesn't answer, is replaced; its children end with it. One that is stale
is replaced too, and ends when its last child has ended. What takes its time (killing trees, waiting for
processes) is done in helper threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.aside import aside
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.framing import Frame, Kind, Part
from skyward_dask.slots.output import Sink
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.template_process import TemplateProcess
from skyward_dask.slots.trees import is_stopped

#: Seconds that a template may take to fork or to bury: it takes milliseconds, unless it was stopped.
PATIENCE = 5.0
#: Seconds that a child may take until it is ready, and a template for its imports: large packages, from slow
#: disks, on a busy machine. What takes longer than that hangs: arbitrary.
START_LIMIT = 300.0
#: Templates lost in a row, with no child forked in between, after which a start has failed. Two more than
#: the one that somebody may kill on purpose: arbitrary.
_LOST_IN_A_ROW = 3


class Nursery:
    """Starts and buries the children of a pool. For the pool's loop.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    preparation : Preparation
    calls : sequence of buffers
        The initializer and the health check, pickled.
    sink : callable
        Takes the lines that templates write.
    helpers : concurrent.futures.Executor
    on_buried : callable
        Called with a child that is dead, with all that it started, or that couldn't be started.

    Attributes
    ----------
    ended : asyncio.Event
        Set when no child and no template lives, after `end`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        preparation: Preparation,
        calls: Sequence[Part],
        sink: Sink,
        helpers: Executor,
        on_buried: Callable[[ChildProcess], None],
    ) -> None:
        self._loop, self._helpers = loop, helpers
        self._preparation, self._calls = preparation, calls
        self._sink, self._on_buried = sink, on_buried
        self._template: TemplateProcess | None = None
        self._templates: set[TemplateProcess] = set()
        self._lost_in_a_row = 0
        self._to_start: list[ChildProcess] = []
        self._delayed: dict[ChildProcess, asyncio.TimerHandle] = {}
        self._to_bury: set[ChildProcess] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._is_ending = False
        self.ended = asyncio.Event()

    # --- children begin --------------------------------------------------------------------------

    def start(self, child: ChildProcess, delay: float) -> None:
        """Start a child, in so many seconds and when there is a template."""
        self._delayed[child] = self._loop.call_later(delay, self._start_delayed, child)

    def _start_delayed(self, child: ChildProcess) -> None:
        del self._delayed[child]
        self._to_start.append(child)
        self._start_children()

    def drop(self, child: ChildProcess) -> None:
        """Bury a child that was given up, if it hasn't been asked for; else it is killed when it is there."""
        if (handle := self._delayed.pop(child, None)) is not None:
            handle.cancel()
        elif child in self._to_start:
            self._to_start.remove(child)
        else:
            return
        # not at once: its pool is in the middle of something
        self._to_bury.add(child)
        self._loop.call_soon(self._bury, child, None)

    def renew(self, preparation: Preparation) -> None:
        """Start children with this preparation from now on."""
        self._preparation = preparation
        self._dismiss()

    def _start_children(self) -> None:
        template = self._present() if self._to_start else None
        if template is None or not template.ready:
            return
        children, self._to_start = self._to_start, []
        for child in children:
            try:
                number = template.start(child)
            except Exception as error:  # a function in `env` is the user's
                self._fail(child, SlotStartFailed(f"slot {child.slot} has no environment: {error!r}"))
            else:
                child.later(PATIENCE, self._lose_if_deaf, template, number)

    def _present(self) -> TemplateProcess | None:
        """The template, made if need be; None if there can be none."""
        if self._template is None:
            try:
                template = TemplateProcess(self._loop, self._preparation, self._sink, self._hear, self._lose)
            except (OSError, ValueError) as error:  # the latter: an environment that no process can have
                self._fail_all(SlotStartFailed(f"no process can be started for a pool: {error!r}"))
                return None
            self._template = template
            self._templates.add(template)
            self._loop.call_later(PATIENCE, self._look_after, template, self._loop.time() + START_LIMIT)
        return self._template

    def _fail(self, child: ChildProcess, error: SlotStartFailed) -> None:
        child.failure = error
        self._bury(child, None)

    def _fail_all(self, error: SlotStartFailed) -> None:
        children, self._to_start = self._to_start, []
        for child in children:
            self._fail(child, error)

    # --- what a template says --------------------------------------------------------------------

    def _hear(self, template: TemplateProcess, frame: Frame) -> None:
        match frame.kind:
            case Kind.READY:
                template.is_ready(*frame.envelope)
                self._start_children()
            case Kind.FORKED:
                self._welcome(template, frame)
            case Kind.FAILED:
                error = OSError(*frame.envelope)
                child = template.forking.pop(frame.number)
                self._fail(child, SlotStartFailed(f"no process can be started for a slot: {error!r}"))
            case Kind.EXITED:
                pid, code = frame.envelope
                self._bury(template.children.pop(pid), code)
        self._end_if_done(template)

    def _welcome(self, template: TemplateProcess, frame: Frame) -> None:
        (pid,) = frame.envelope
        self._lost_in_a_row = 0
        child = template.children[pid] = template.forking.pop(frame.number)
        child.started(pid, frame.descriptors[0] if frame.descriptors else None)
        child.prepare(template.preparation, self._calls)
        if child.pidfd is not None:
            self._loop.add_reader(child.pidfd, self._seen_dead, child)
        child.later(PATIENCE, self._look_at_start, child, self._loop.time() + START_LIMIT)

    def _look_at_start(self, child: ChildProcess, deadline: float) -> None:
        """Give up a child that is not ready when it should be, or would not be for ever."""
        if child.doomed:
            return
        if self._loop.time() > deadline:
            child.give_up(f"was not ready after {START_LIMIT:g} s")
        elif is_stopped(child.pid):
            child.give_up("was stopped (SIGSTOP) before it was ready")
        else:
            child.later(PATIENCE, self._look_at_start, child, deadline)

    # --- children end ----------------------------------------------------------------------------

    def _seen_dead(self, child: ChildProcess) -> None:
        assert child.pidfd is not None
        self._loop.remove_reader(child.pidfd)
        self.expect_burial(child)

    def expect_burial(self, child: ChildProcess) -> None:
        """A child is dead, or as good as: its template, which says so, has its time for that."""
        child.later(PATIENCE, self._lose_if_silent, child)

    def _lose_if_silent(self, child: ChildProcess) -> None:
        for template in list(self._templates):
            if template.children.get(child.pid) is child:
                self._lose(template)

    def _lose_if_deaf(self, template: TemplateProcess, number: int) -> None:
        if number in template.forking:
            self._lose(template)

    def _bury(self, child: ChildProcess, code: int | None) -> None:
        self._to_bury.discard(child)
        child.bury(code)
        self._on_buried(child)
        self._end_if_over()

    # --- templates end ---------------------------------------------------------------------------

    def _dismiss(self) -> None:
        """Start no more children with the present template; it ends with its last one."""
        template, self._template = self._template, None
        if template is not None:
            self._end_if_done(template)

    def _end_if_done(self, template: TemplateProcess) -> None:
        is_done = template is not self._template and not template.children and not template.forking
        if is_done and template in self._templates:
            self._templates.discard(template)
            template.dismiss()
            self._spawn(self._await_end(template))

    async def _await_end(self, template: TemplateProcess) -> None:
        await aside(self._helpers, template.wait)
        template.close()

    def _look_after(self, template: TemplateProcess, deadline: float) -> None:
        """Look after a template while it prepares: it may take its time for imports, but not for ever.

        And for good where nobody else tells of deaths: a grandchild can hold a dead child's socket open.
        """
        if template not in self._templates or (template.ready and available(Feature.PIDFD)):
            return
        template.hangs = not template.ready and self._loop.time() > deadline
        if template.hangs or template.is_stopped():
            self._lose(template)
        else:
            self._loop.call_later(PATIENCE, self._look_after, template, deadline)

    def _lose(self, template: TemplateProcess) -> None:
        """A template is dead, or doesn't answer: end what it leaves, and start another."""
        if template not in self._templates:
            return
        self._templates.discard(template)
        if template is self._template:
            self._template = None
        self._spawn(self._end_lost(template))

    async def _end_lost(self, template: TemplateProcess) -> None:
        template.hear_last_words()
        await aside(self._helpers, template.kill)
        template.hear_last_words()
        self._lost_in_a_row += 1
        failed = template.hangs or template.ended_itself() or self._lost_in_a_row >= _LOST_IN_A_ROW
        failure = template.failure(START_LIMIT)
        for child in template.forking.values():
            child.orphaned = not failed
            self._fail(child, failure)
        for child in list(template.children.values()):
            child.orphaned = True
            self._bury(child, None)
        template.close()
        if failed:
            self._fail_all(failure)
        self._start_children()

    # --- the end -----------------------------------------------------------------------------------

    def end(self) -> None:
        """End when the last child has; nothing is to be started any more."""
        self._is_ending = True
        self._dismiss()
        self._end_if_over()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._ending.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._is_ending and not (self._templates or self._ending or self._to_bury):
            self.ended.set()
