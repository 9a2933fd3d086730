"""A child's life between `Ready` and its end: runs, one after the other, on its main thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from skyward_dask.slots.channel import Channel, ChannelClosed
from skyward_dask.slots.child.exchange import Exchange
from skyward_dask.slots.child.exits import INTERRUPTED, exit_now, flush, leave
from skyward_dask.slots.child.forks import forks_end_here
from skyward_dask.slots.child.leftovers import Leftovers
from skyward_dask.slots.child.link import Link
from skyward_dask.slots.child_messages import Ended, Raised
from skyward_dask.slots.exceptions import dump_exception
from skyward_dask.slots.framing import Frame, Part
from skyward_dask.slots.pickling import dumps, unpicklable
from skyward_dask.slots.status_page import Page

#: Whether it is an exception; for each part its size if it is in shared memory, else None; the other parts.
_Outcome = tuple[bool, tuple[int | None, ...], list[Part]]


@dataclass(slots=True)
class Server:
    """Takes runs and answers them.

    Attributes
    ----------
    runs : Channel
        Where runs come from.
    link : Link
    page : Page
    exchange : Exchange
    leftovers : Leftovers
    health_check : callable or None
    """

    runs: Channel
    link: Link
    page: Page
    exchange: Exchange
    leftovers: Leftovers
    health_check: Callable[[], object] | None

    def serve(self) -> None:
        """Serve until the worker has no more runs for this process, or the process can't take any more."""
        try:
            while (frame := self.exchange.next_run()) is not None:
                self._answer(frame)
                del frame
                self.exchange.tidy()
        except ChannelClosed:
            return

    def _answer(self, frame: Frame) -> None:
        link, begun = self.link, monotonic()
        self.page.called = 0.0
        self.page.begun = frame.number
        (raised, sizes, parts), is_healthy = self._run(frame)
        if raised:
            self._end(frame.number)
        seconds = monotonic() - begun
        ended = Ended(raised, link.report, sizes, is_healthy, self.exchange.is_short, seconds)
        self.runs.send(ended, frame.number, parts)
        link.report = ()

    def _end(self, number: int) -> None:
        """The run has its outcome, and its limits no longer apply: only the outcome remains to be sent."""
        flush()
        self.page.ended = number

    def _run(self, frame: Frame) -> tuple[_Outcome, bool]:
        """Carry out a run; an interrupt that comes anywhere in here ends the process."""
        try:
            self.link.run = frame.number
            outcome = self._outcome(frame)
            is_healthy = not outcome[0] or self._is_healthy(frame.number, outcome[2])
            self.link.run = 0
        except KeyboardInterrupt:
            if not self.link.stopped:  # otherwise the worker asked for it
                traceback.print_exc()
            exit_now(INTERRUPTED)
        return outcome, is_healthy

    def _is_healthy(self, number: int, error: list[Part]) -> bool:
        if self.health_check is None:
            return True
        self.runs.send(Raised(), number, error)
        try:
            with forks_end_here():
                found = self.health_check()
            return found is None or bool(found)
        except KeyboardInterrupt:
            raise
        except BaseException:
            traceback.print_exc()
            return False

    def _outcome(self, frame: Frame) -> _Outcome:
        try:
            return False, *self._call(frame)
        except SystemExit as leaving:
            leave(leaving)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # cut off our own frames: the others are the task's, and are sent to its caller
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
                trace = trace.tb_next
            return True, (), dump_exception(error.with_traceback(trace))

    def _call(self, frame: Frame) -> tuple[tuple[int | None, ...], list[Part]]:
        with forks_end_here():
            function, args, kwargs = self.exchange.call(frame)
            self.link.call_begins()
            try:
                value = function(*args, **kwargs)
            finally:
                self.leftovers.clear()
        try:
            parts = dumps(value)
        except Exception as error:
            raise unpicklable([("the result", value)], error) from error
        self._end(frame.number)
        return self.exchange.result(parts, frame.number)
