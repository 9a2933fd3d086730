"""How children start and end: templates start them, and report their deaths.

```
 pool ── start(child) ──▶ Nursery ── Fork ──▶ template ──▶ children
      ◀─── on_buried ───          ◀─ Exited ─
```

A template that is killed, or that doesn't answer, is replaced; its children end with it. One that is stale
is replaced too, and ends when its last child has ended.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Executor

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots import templates
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.output import Sink
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.template_messages import Exited, Forked, Imported, NotForked
from skyward_dask.slots.template_process import TemplateProcess
from skyward_dask.slots.trees import is_stopped


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
        Set after `end`, when no child and no template is alive any more.
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
        self._loop, self._calls, self._on_buried = loop, calls, on_buried
        self._templates = templates.Templates(
            preparation, sink, helpers, self._hear, self._lost, self._end_if_over
        )
        self._to_start: list[ChildProcess] = []
        self._delayed: dict[ChildProcess, asyncio.TimerHandle] = {}
        self._to_bury: set[ChildProcess] = set()
        self._is_ending = False
        self.ended = asyncio.Event()

    # --- children begin --------------------------------------------------------------------------

    def start(self, child: ChildProcess, delay: float) -> None:
        """Start a child after `delay` seconds, when there is a template."""
        self._delayed[child] = self._loop.call_later(delay, self._start_delayed, child)

    def _start_delayed(self, child: ChildProcess) -> None:
        del self._delayed[child]
        self._to_start.append(child)
        self._start_children()

    def drop(self, child: ChildProcess) -> None:
        """Bury a child that was given up, if no template was told to start it; else it is killed later."""
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
        self._templates.renew(preparation)
        self._loop.call_soon(self._start_children)  # those that waited for the one it had

    def guard_limits(self) -> None:
        """From now on there are runs with limits: templates enforce these while this loop is blocked."""
        self._templates.guard_limits()

    def _start_children(self) -> None:
        if not self._to_start:
            return
        try:
            template = self._templates.present()
        except SlotStartFailed as error:
            self._fail_all(error)
            return
        if template.ready:
            children, self._to_start = self._to_start, []
            for child in children:
                self._fork(template, child)

    def _fork(self, template: TemplateProcess, child: ChildProcess) -> None:
        try:
            number = template.start(child)
        except Exception as error:  # a function in `env` is the user's, and may raise anything
            self._fail(child, SlotStartFailed(f"slot {child.slot} has no valid environment: {error!r}"))
        else:
            child.later(templates.PATIENCE, self._lose_if_deaf, child, template, template.forking, number)

    def _lose_if_deaf(
        self, child: ChildProcess, template: TemplateProcess, waiting: Container[int], number: int
    ) -> None:
        """Lose a template that hasn't said anything for a while, as long as a child waits for its word.

        If it has, it has many children to serve, one after the other.
        """
        if number not in waiting:
            return
        patience = template.heard + templates.PATIENCE - self._loop.time()
        if patience > 0:
            child.later(patience, self._lose_if_deaf, child, template, waiting, number)
        else:
            self._templates.lose(template)

    def _fail(self, child: ChildProcess, error: SlotStartFailed) -> None:
        child.failure = error
        self._bury(child, None)

    def _fail_all(self, error: SlotStartFailed) -> None:
        children, self._to_start = self._to_start, []
        for child in children:
            self._fail(child, error)

    # --- what a template says --------------------------------------------------------------------

    def _hear(self, template: TemplateProcess, frame: Frame) -> None:
        template.heard = self._loop.time()
        match frame.message:
            case Imported(forks):
                template.is_ready(forks)
                self._start_children()
            case Forked(pid):
                self._welcome(template, pid, frame)
            case NotForked(errno):
                error = OSError(errno, os.strerror(errno))
                child = template.forking.pop(frame.number)
                self._fail(child, SlotStartFailed(f"no process can be started for a slot: {error!r}"))
            case Exited(pid, code):
                self._bury(template.children.pop(pid), code)
        self._templates.end_if_done(template)

    def _welcome(self, template: TemplateProcess, pid: int, frame: Frame) -> None:
        self._templates.has_forked()
        child = template.children[pid] = template.forking.pop(frame.number)
        child.started(pid, frame.descriptors[0] if frame.descriptors else None)
        child.prepare(template.preparation, self._calls)
        if child.pidfd is not None:
            self._loop.add_reader(child.pidfd, self._seen_dead, child)
        child.later(templates.PATIENCE, self._look_at_start, child, self._loop.time() + templates.START_LIMIT)

    def _look_at_start(self, child: ChildProcess, deadline: float) -> None:
        """Give up a child that isn't ready in time, or that never would be."""
        if child.doomed:
            return
        if self._loop.time() > deadline:
            child.give_up(f"was not ready after {templates.START_LIMIT:g} s")
        elif is_stopped(child.pid):
            child.give_up("was stopped (SIGSTOP) before it was ready")
        else:
            child.later(templates.PATIENCE, self._look_at_start, child, deadline)

    # --- children end ----------------------------------------------------------------------------

    def _seen_dead(self, child: ChildProcess) -> None:
        assert child.pidfd is not None
        self._loop.remove_reader(child.pidfd)
        self.expect_burial(child)

    def expect_burial(self, child: ChildProcess) -> None:
        """A child is dead, or as good as dead: its template has a limited time to report that."""
        if (template := self._templates.that_of(child.pid)) is not None:
            child.later(templates.PATIENCE, self._lose_if_deaf, child, template, template.children, child.pid)

    def _lost(self, template: TemplateProcess, failure: SlotStartFailed, has_failed: bool) -> None:
        """A template is lost, with all its children: those that are not to blame for it start again."""
        for child in template.forking.values():
            child.orphaned = not has_failed
            self._fail(child, failure)
        for child in list(template.children.values()):
            child.orphaned = True
            self._bury(child, None)
        if has_failed:
            self._fail_all(failure)
        self._start_children()

    def _bury(self, child: ChildProcess, code: int | None) -> None:
        self._to_bury.discard(child)
        child.bury(code)
        self._on_buried(child)
        self._end_if_over()

    # --- the end -----------------------------------------------------------------------------------

    def end(self) -> None:
        """End when the last child has ended; no more children are started."""
        self._is_ending = True
        self._templates.dismiss()
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._is_ending and self._templates.are_gone and not self._to_bury:
            self.ended.set()
