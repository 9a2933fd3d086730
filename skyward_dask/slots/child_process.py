"""The worker's end of one child process: send it a run, answer its requests, say how it died, kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.child_messages import Ended, Prepare
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.lifecycle import Command, Event, State, step
from skyward_dask.slots.loop_channel import LoopChannel, do_nothing, take_nothing
from skyward_dask.slots.memory.forms import Form
from skyward_dask.slots.memory.lending import Lender
from skyward_dask.slots.memory.segments import Segments
from skyward_dask.slots.output import Output, Sink
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.runs import Run
from skyward_dask.slots.stacks import Stacks
from skyward_dask.slots.status_page import STACK_SIGNAL, Limits, Overrun, Page, signal_listener
from skyward_dask.slots.trees import end_tree

#: Seconds to wait until the process tree of a child that has lost its template has ended.
_TREE_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended: an exit code, or the name of a signal; neither if nobody saw it."""

    exitcode: int | None
    signal: str | None
    stack: str
    stderr: str


class ChildProcess:
    """A child and the worker's ends of its sockets and pipes. For the pool's loop.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    slot : int
        The index of the child's slot.
    sink : callable
        Takes the lines that the child writes.
    segments : Segments, optional
        Shared memory; without it, everything goes over the socket.
    on_frame : callable
        Takes the child and each frame that it sends.
    on_end : callable
        Called with the child when it has closed its socket.

    Attributes
    ----------
    state : State
        Its state in `lifecycle.TABLE`.
    run : Run or None
        The run that it has.
    last : bool
        It must not get another run.
    is_healthy : bool
        What its health check said after its last run.
    stacks : Stacks
        Gets the stacks of its threads.
    failure : SlotStartFailed or None
        Why it couldn't be started.
    orphaned : bool
        Its template is lost: that is no fault of the run that the child had.
    retries : bool
        It starts again after others failed to start.
    death : Death or None
        Known once the child is buried.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slot: int,
        sink: Sink,
        segments: Segments | None,
        on_frame: Callable[[ChildProcess, Frame], None],
        on_end: Callable[[ChildProcess], None],
    ) -> None:
        self.slot = slot
        self._loop = loop
        self.lender = Lender(segments)
        self.answering = Lender(segments)  # over another socket, whose frames may arrive before or after
        self.failure: SlotStartFailed | None = None
        self.state = State.STARTING
        self.last = self.orphaned = self.doomed = self.retries = False
        self.is_healthy = True
        self.run: Run | None = None
        self.runs_done = self.pid = 0
        self.pidfd: int | None = None
        self.death: Death | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._number = 0
        self.page = Page()
        self.output = Output(loop, sink)
        ours, self._theirs = socket.socketpair()
        answers, self._answered = socket.socketpair()
        self.runs = LoopChannel(loop, ours, partial(on_frame, self), partial(on_end, self))
        self.answers = LoopChannel(loop, answers, take_nothing, do_nothing)
        self.stacks = Stacks(self.page, self.answers, self._signal_listener)

    def apply(self, event: Event) -> tuple[Command, ...]:
        """Apply an event; returns the commands that follow from it."""
        self.state, commands = step(self.state, event)
        return commands

    def later(self, seconds: float, function: Callable[..., None], *args: object) -> None:
        """Call a function in `seconds`, unless the child is buried before, or gets ready if it starts."""
        if self.death is None:
            self._timers.append(self._loop.call_later(seconds, function, *args))

    def cancel_timers(self) -> None:
        """Cancel all that is due later: a timer would keep the child in memory."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # --- its beginning ---------------------------------------------------------------------------

    def descriptors(self) -> tuple[int, ...]:
        """What a template gives the child: its ends of the sockets, the page, stdout and stderr."""
        writers = self.output.writers
        own = (self._theirs.fileno(), self._answered.fileno(), self.page.fd)
        return (*own, writers["stdout"], writers["stderr"])

    def started(self, pid: int, pidfd: int | None) -> None:
        """The template has started the child; these are its process id and its pidfd."""
        self._close_theirs()
        self.pid, self.pidfd = pid, pidfd
        self.runs.listen()
        self.output.listen()
        if self.doomed:
            self.kill()

    def prepare(self, preparation: Preparation, calls: Sequence[Part]) -> None:
        """Tell the child what to do before its first run; it answers with `Ready`."""
        wanted = Prepare(
            path=preparation.path(),
            authkey=preparation.authkey(),
            backend=preparation.backend,
            modules=preparation.pre_import,
            share_from=self.lender.share_from,
        )
        self.runs.send(Frame(wanted, parts=[preparation.backend_argument, *calls]))

    def give_up(self, reason: str) -> None:
        """The child's start has failed: it doesn't get ready."""
        self.failure = SlotStartFailed(
            f"the process of slot {self.slot} {reason}, and was killed: its pre_import or initializer may "
            "hang.",
            self.output.tail(),
        )
        self.kill()

    def _close_theirs(self) -> None:
        self._theirs.close()
        self._answered.close()
        self.output.close_writers()

    # --- a run -----------------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """Send the child a run, which it has from then on."""
        self._number += 1
        self.run, run.child = run, self
        self.output.begin(run.key)
        if run.has_limits:
            self.page.set_limits(Limits(self._number, run.timeout or 0.0, run.memory_limit or 0))
        self.lender.send(self.runs, self._number, run.forms)

    def take(self, ended: Ended, parts: Sequence[Part]) -> Form:
        """The value, or the exception, with which the child's run has ended."""
        self.output.end()
        self.is_healthy = ended.is_healthy
        if ended.is_short:
            self.lender.forget()
            self.answering.forget()
        form = self.lender.collect(ended.sizes, parts)
        self.lender.close()
        return form

    def part(self) -> None:
        """The child no longer has its run."""
        run, self.run = self.run, None
        assert run is not None
        run.child = None
        run.cancel_deadline()
        self.runs_done += 1

    def is_asking(self, run: int) -> bool:
        """Whether a request belongs to the child's run: a thread may outlive the run that started it."""
        return self.run is not None and run == self._number

    @property
    def has_begun(self) -> bool:
        """Whether the child has begun the run that it has."""
        return self.page.begun == self._number

    def overrun(self) -> Overrun | None:
        """What the template has found about the child's run, if that was over a limit."""
        return self.page.overrun(self._number)

    def due(self, timeout: float) -> float:
        """The moment at which the run times out: `timeout` seconds after its function was called.

        The time before that, to unpickle its arguments and to import what they need, doesn't count; nor does
        the time to send its outcome afterwards.
        """
        is_running = self.has_begun and self.page.ended != self._number
        called = self.page.called if is_running else 0.0
        return (called or self._loop.time()) + timeout

    # --- its end ---------------------------------------------------------------------------------

    @property
    def is_ending(self) -> bool:
        """Whether the child won't get another run."""
        return self.last or self.state in (State.STOPPING, State.KILLING)

    def start_failure(self) -> SlotStartFailed:
        """Why the child was never ready."""
        return self.failure or SlotStartFailed(
            f"the process of slot {self.slot} ended before it was ready: its pre_import or its initializer "
            "may have failed, or the machine may be short of memory or processes.",
            self.death.stderr if self.death else "",
        )

    def interrupt(self) -> None:
        """Have KeyboardInterrupt raised in the child's run."""
        self.page.stop = self._number
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the child, now or as soon as it has started; what it has started itself ends with it."""
        self.doomed = True
        self._signal(signal.SIGKILL)

    def kill_tree(self) -> None:
        """Kill the child with all its descendants; called in a helper thread, as it may take a while."""
        end_tree(self.pid, _TREE_PATIENCE, self._signal)

    def _signal(self, number: int) -> None:
        if self.death is not None or not self.pid:
            return  # by now its pid may belong to another process
        with suppress(ProcessLookupError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)

    def _signal_listener(self) -> None:
        is_there = self.death is None and self.pid != 0
        if is_there and not signal_listener(self.pid, self.page):
            self._signal(STACK_SIGNAL)  # any thread may take it, perhaps the task's

    def bury(self, code: int | None) -> None:
        """Record how the child died; its template has reaped it, or has ended itself."""
        self.cancel_timers()
        self.runs.drain()  # what it sent before it died counts
        self._close_theirs()
        self.output.close()
        name = _signal_name(-code) if code is not None and code < 0 else None
        stack = self.page.last_words(self.stacks.told)
        self.death = Death(None if name else code, name, stack, self.output.tail())
        if self.pidfd is not None:
            self._loop.remove_reader(self.pidfd)
            os.close(self.pidfd)

    def close(self) -> None:
        """Close what is left, when the child is buried and nobody uses it."""
        self.stacks.close()
        self.lender.close()
        self.runs.close()
        self.answers.close()
        self.page.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
        return f"signal {number}"
