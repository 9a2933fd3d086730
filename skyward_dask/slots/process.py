"""The worker's end of one child process: run one call at a time in it, tell how it died, kill it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.channel import Channel, ChannelClosed, Frame, Kind, Part
from skyward_dask.slots.child import STACK_SIGNAL
from skyward_dask.slots.forms import Form
from skyward_dask.slots.guardian import TREE_PATIENCE, Guardian
from skyward_dask.slots.lending import Lender
from skyward_dask.slots.lifecycle import Command, Event, State, step
from skyward_dask.slots.output import Output, Sink
from skyward_dask.slots.page import Page
from skyward_dask.slots.pickling import dump_exception, dumps, loads, unpicklable
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.runs import Request, Run
from skyward_dask.slots.segments import Segments
from skyward_dask.slots.trees import end_tree

#: Seconds to wait for a stack: faulthandler writes one in a millisecond, once the signal is delivered.
_STACK_PATIENCE = 0.2
#: Seconds without another word after which a stack is taken for complete.
_STACK_PAUSE = 0.005
#: What faulthandler says of the child's own thread, which is of no interest to a task's user.
_LISTENER = " in _listen\n"


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended: an exit code, or the name of a signal; neither if nobody saw it."""

    exitcode: int | None
    signal: str | None
    stack: str
    stderr: str


class Lost(Exception):
    """The child is dying or dead while it has the run: `ChildProcess.death` will tell how."""


class ChildProcess:
    """A child and the worker's ends of its sockets and pipes.

    Parameters
    ----------
    slot : int
        The index of the slot that it is for.
    sink : callable
        Takes the lines that the child writes.
    segments : Segments, optional
        Shared memory; everything goes over the socket without it.
    not_before : float
        The moment of `time.monotonic` at which it may be started.

    Attributes
    ----------
    state : State
        Where it stands in `lifecycle.TABLE`; guarded by the pool's lock.
    run : Run or None
        What it runs; guarded by the pool's lock.
    last : bool
        It is not to have another run.
    is_healthy : bool
        What its health check said after its last run.
    failure : SlotStartFailed or None
        Why it couldn't be started.
    orphaned : bool
        Its template is gone: whatever it was running is no fault of that run.
    died : threading.Event
        Set when `death` is known.

    Notes
    -----
    Started, watched and buried by the supervisor's thread; `carry_out` is called by one thread at a time.
    """

    def __init__(
        self, slot: int, sink: Sink, segments: Segments | None = None, not_before: float = 0.0
    ) -> None:
        self.slot = slot
        self._lender = Lender(segments)
        self.not_before = not_before
        self.failure: SlotStartFailed | None = None
        self.state = State.STARTING
        self.last = False
        self.orphaned = False
        self.run: Run | None = None
        self.runs_done = 0
        self.is_healthy = True
        self.doomed = False
        self.pid = 0
        self.pidfd: int | None = None
        self.death: Death | None = None
        self.died = threading.Event()
        self._dying = threading.Lock()  # nobody signals a process whose number may be another's by now
        self._number = 0  # that of the run that it has
        self._closed = False
        self.page = Page()
        self._told = self.page.written()  # what faulthandler wrote before was asked for
        self.output = Output(sink)
        ours, self._theirs = socket.socketpair()
        answers, self._answered = socket.socketpair()
        self.runs, self.answers = Channel(ours), Channel(answers)

    def apply(self, event: Event) -> tuple[Command, ...]:
        """Take an event; returns what to do about it."""
        self.state, commands = step(self.state, event)
        return commands

    # --- its beginning ---------------------------------------------------------------------------

    def start(self, guardian: Guardian) -> None:
        """Have the template start it; raises what `Guardian.fork` raises."""
        writers = self.output.writers
        descriptors = self._theirs.fileno(), self._answered.fileno(), self.page.fd
        try:
            pid, pidfd = guardian.fork(self.slot, (*descriptors, writers["stdout"], writers["stderr"]))
        finally:
            self._close_theirs()
        with self._dying:
            self.pid, self.pidfd = pid, pidfd
        if self.doomed:
            self.kill()

    def _close_theirs(self) -> None:
        self._theirs.close()
        self._answered.close()
        self.output.close_writers()

    def prepare(self, preparation: Preparation, calls: list[Part]) -> None:
        """Tell the child what to do before its first run; it answers with READY."""
        envelope = (
            preparation.path(),
            preparation.backend,
            preparation.pre_import,
            self._lender.share_from,
        )
        # a child that is dead already is heard of from its template
        with suppress(ChannelClosed):
            self.runs.send(Kind.PREPARE, 0, envelope, [preparation.backend_argument, *calls])

    def is_ready(self) -> bool:
        """Take the word that came on `runs` while the child was starting; False: it is about to die."""
        try:
            return self.runs.receive().kind is Kind.READY
        except ChannelClosed:
            return False

    # --- a run -----------------------------------------------------------------------------------

    def carry_out(self, run: Run, forms: tuple[Form, ...]) -> tuple[Kind, Form]:
        """Have the child run the call; returns its word: RESULT and a value, or ERROR and an exception.

        Parameters
        ----------
        run : Run
        forms : tuple of Form
            The call and what is attached to it.

        Raises
        ------
        Lost
            The child died meanwhile.
        """
        try:
            self.output.begin(run.request.key)
            self._lender.send(self.runs, self._number, forms)
            reply = self._wait(run.request)
        except ChannelClosed:
            # An end of file is a death, or a child that closed its sockets: then this makes it one. A
            # process that is exiting already keeps its exit code.
            self.kill()
            raise Lost from None
        except BaseException:
            self.kill()  # the run goes on in there, and its answer would be taken for the next one's
            raise
        self.output.end()
        report, sizes, self.is_healthy, is_short = reply.envelope or ((), (), True, False)
        if is_short:
            self._lender.forget()
        if run.request.report is not None and report:
            run.request.report(*report)
        return reply.kind, self._lender.collect(sizes, reply.parts)

    def expect(self) -> None:
        """Count the run that the child is about to have: from here on it can be interrupted."""
        self._number += 1

    @property
    def has_begun(self) -> bool:
        """Whether the child has begun the run that it has."""
        return self.page.begun == self._number

    def due(self, timeout: float) -> float:
        """The moment at which the run's time is over: so many seconds after its function was called.

        Its arguments are unpickled before, and what they need is imported: that is not its own time.
        """
        called = self.page.called if self.has_begun else 0.0
        return (called or time.monotonic()) + timeout

    def _wait(self, request: Request) -> Frame:
        while True:
            frame = self.runs.receive()
            if frame.kind is Kind.ALLOCATE:
                self._lender.grant(self.runs, frame)
            elif frame.kind is Kind.REQUEST:
                self._serve(request, frame)
            else:
                return frame

    def _serve(self, request: Request, frame: Frame) -> None:
        run, name = frame.envelope
        try:
            if run != self._number:
                raise RuntimeError(f"{name} needs the worker, and the task that asked has ended")
            if request.serve is None:
                raise RuntimeError(f"{name} needs a worker, and nobody here serves it")
            args, kwargs = loads(frame.parts)
            value = request.serve(name, args, kwargs)
        except Exception as error:  # it is the task's to see
            self._answer(frame.number, False, dump_exception(error))
            return
        if isinstance(value, Future):
            value.add_done_callback(partial(self._answer_later, frame.number))
        else:
            self._answer_with(frame.number, value)

    def _answer_with(self, number: int, value: object) -> None:
        try:
            done, parts = True, dumps(value)
        except Exception as error:
            done, parts = False, dump_exception(unpicklable([("the worker's answer", value)], error))
        self._answer(number, done, parts)

    def _answer_later(self, number: int, outcome: Future[Any]) -> None:
        with suppress(ChannelClosed):  # the child is gone: nobody waits for it any more
            if outcome.cancelled():
                self._answer(number, False, dump_exception(CancelledError()))
            elif (error := outcome.exception()) is not None:
                self._answer(number, False, dump_exception(error))
            else:
                self._answer_with(number, outcome.result())

    def _answer(self, number: int, done: bool, parts: list[Part]) -> None:
        if number:  # else the child has told us something, and asks for nothing
            self.answers.send(Kind.ANSWER, number, (done,), parts)

    # --- its end ---------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Have KeyboardInterrupt raised in the run that it has."""
        self.page.stop = self._number
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill the child, if it still lives, or as soon as it does; what it has started goes with it."""
        self.doomed = True
        self._signal(signal.SIGKILL)

    def kill_tree(self) -> None:
        """Kill the child with all that descends from it: its template is gone, and nobody else will."""
        self.orphaned = True
        end_tree(self.pid, TREE_PATIENCE, self._signal)

    def _signal(self, number: int) -> None:
        with self._dying, suppress(ProcessLookupError):
            if self.died.is_set() or not self.pid:
                return
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)

    def stack(self) -> str:
        """Where all its threads stand, whoever holds the GIL; empty if it doesn't say in time."""
        with self._dying:
            if self._closed:
                return ""
            page = self.page.copy()
        since = at = page.written()
        self._signal(STACK_SIGNAL)
        deadline = time.monotonic() + _STACK_PATIENCE
        while time.monotonic() < deadline:
            time.sleep(_STACK_PAUSE)
            before, at = at, page.written()
            if at == before and at > since:
                break
        self._told = at
        text = page.stack(since)
        page.close()
        return "\n\n".join(part for part in text.split("\n\n") if _LISTENER not in part)

    def close_gently(self) -> None:
        """Let an idle child leave by itself, as a program does."""
        with suppress(OSError):
            self.runs.socket.shutdown(socket.SHUT_WR)

    def bury(self, code: int | None) -> None:
        """Take note of how the child died; its template has reaped it, or is gone itself."""
        self._close_theirs()
        self.output.close()
        name = _signal_name(-code) if code is not None and code < 0 else None
        self.death = Death(None if name else code, name, self.page.stack(self._told), self.output.tail())
        with suppress(OSError):
            self.runs.socket.shutdown(socket.SHUT_RD)  # what it wrote can be read; then comes the end
        with self._dying:
            if self.pidfd is not None:
                os.close(self.pidfd)
            self.died.set()

    def close(self) -> None:
        """Close what `run` may still have needed, once; the child has been buried."""
        with self._dying:
            if self._closed:
                return
            self._closed = True
        self._lender.close()
        self.runs.close()
        self.answers.close()
        self.page.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
        return f"signal {number}"
