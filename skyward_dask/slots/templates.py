"""The templates of a pool: one starts children; earlier ones end with their last child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.aside import Tasks, aside
from skyward_dask.slots.features import Feature, available
from skyward_dask.slots.framing import Frame
from skyward_dask.slots.output import Sink
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.template_process import TemplateProcess

#: Seconds that a template may be silent while a child is to be forked or buried, which takes milliseconds.
PATIENCE = 5.0
#: Seconds that a child may take until it is ready, and a template for its imports: large packages, from slow
#: disks, on a busy machine. What takes longer than that is considered hung: arbitrary.
START_LIMIT = 300.0
#: Templates lost in a row, with no child forked in between, after which a start has failed. Two more than
#: the one that somebody may kill on purpose: arbitrary.
_LOST_IN_A_ROW = 3


class Templates:
    """The templates of a pool. For the pool's loop.

    Parameters
    ----------
    preparation : Preparation
    sink : callable
        Takes the lines that templates write.
    helpers : concurrent.futures.Executor
        Threads that kill process trees, and wait for processes.
    on_frame : callable
        Takes a template and each frame that it sends.
    on_lost : callable
        Takes a template that is dead with all its children, why, and whether the next would be lost as well.
    on_end : callable
        Called when a template has ended.
    """

    def __init__(
        self,
        preparation: Preparation,
        sink: Sink,
        helpers: Executor,
        on_frame: Callable[[TemplateProcess, Frame], None],
        on_lost: Callable[[TemplateProcess, SlotStartFailed, bool], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._preparation, self._sink, self._helpers = preparation, sink, helpers
        self._on_frame, self._on_lost = on_frame, on_lost
        self._present: TemplateProcess | None = None
        self._all: set[TemplateProcess] = set()
        self._lost_in_a_row = 0
        self._ending = Tasks(on_end)
        self._guard_limits = False

    @property
    def are_gone(self) -> bool:
        """Whether no template is alive."""
        return not (self._all or self._ending)

    def present(self) -> TemplateProcess:
        """The template that starts children, made if necessary.

        Raises
        ------
        SlotStartFailed
            No template can be started.
        """
        if self._present is None:
            try:
                template = TemplateProcess(
                    self._loop, self._preparation, self._sink, self._on_frame, self.lose
                )
            except (OSError, ValueError) as error:  # the latter: an environment that no process can have
                raise SlotStartFailed(f"no process can be started for a pool: {error!r}") from error
            self._present = template
            if self._guard_limits:
                template.guard_limits()
            self._all.add(template)
            self._loop.call_later(PATIENCE, self._look_after, template, self._loop.time() + START_LIMIT)
        return self._present

    def guard_limits(self) -> None:
        """Have templates look at the limits of runs."""
        if not self._guard_limits:
            self._guard_limits = True
            for template in self._all:
                template.guard_limits()

    def renew(self, preparation: Preparation) -> None:
        """Start children with this preparation from now on."""
        self._preparation = preparation
        self.dismiss()

    def dismiss(self) -> None:
        """Start no more children with the present template; it ends with its last child."""
        template, self._present = self._present, None
        if template is not None:
            self.end_if_done(template)

    def end_if_done(self, template: TemplateProcess) -> None:
        """End a template that was dismissed, when its last child has ended."""
        is_done = template is not self._present and not template.children and not template.forking
        if is_done and template in self._all:
            self._all.discard(template)
            template.dismiss()
            self._ending.spawn(self._await_end(template))

    async def _await_end(self, template: TemplateProcess) -> None:
        await aside(self._helpers, template.wait)
        template.close()

    # --- loss ------------------------------------------------------------------------------------

    def has_forked(self) -> None:
        """Templates can start children: the next loss is the first in a row."""
        self._lost_in_a_row = 0

    def _look_after(self, template: TemplateProcess, deadline: float) -> None:
        """Watch a template while it prepares: imports may take a while, but not for ever.

        Where nothing else reports deaths, go on watching: a grandchild can hold a dead child's socket open.
        """
        if template not in self._all or (template.ready and available(Feature.PIDFD)):
            return
        template.hangs = not template.ready and self._loop.time() > deadline
        if template.hangs or template.is_stopped():
            self.lose(template)
        else:
            self._loop.call_later(PATIENCE, self._look_after, template, deadline)

    def that_of(self, pid: int) -> TemplateProcess | None:
        """The template of a child that is alive."""
        return next((template for template in self._all if pid in template.children), None)

    def lose(self, template: TemplateProcess) -> None:
        """A template is dead, or doesn't answer: end what it leaves behind."""
        if template not in self._all:
            return
        self._all.discard(template)
        if template is self._present:
            self._present = None
        self._ending.spawn(self._end_lost(template))

    async def _end_lost(self, template: TemplateProcess) -> None:
        template.hear_last_words()
        await aside(self._helpers, template.kill)
        template.hear_last_words()
        self._lost_in_a_row += 1
        has_failed = template.hangs or template.ended_itself() or self._lost_in_a_row >= _LOST_IN_A_ROW
        self._on_lost(template, template.failure(START_LIMIT), has_failed)
        template.close()
