"""Carries out the commands about a child that `lifecycle` returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from skyward_dask.slots.backoff import Backoff
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.lifecycle import Command, Event
from skyward_dask.slots.nursery import Nursery
from skyward_dask.slots.runs import Run
from skyward_dask.slots.slot import Slot

#: Seconds that an idle child has to exit by itself: most exit in 50 ms, but an atexit function may take a
#: while.
_LEAVE = 2.0


class Commands:
    """Carries out commands, and returns the events that follow from them.

    Parameters
    ----------
    slots : sequence of Slot
    nursery : Nursery
    backoff : Backoff
    grace : float
        Seconds between interrupting a run and killing it.
    on_event : callable
        Takes an event, the index of a slot and a process id.
    on_overdue : callable
        Takes a child that has used up its time to end a run, or to exit.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        nursery: Nursery,
        backoff: Backoff,
        grace: float,
        on_event: Callable[[str, int, int], None],
        on_overdue: Callable[[ChildProcess], None],
    ) -> None:
        self._slots, self._nursery, self._backoff = slots, nursery, backoff
        self._grace, self._on_event, self._on_overdue = grace, on_event, on_overdue

    def carry_out(self, command: Command, child: ChildProcess) -> tuple[Event, ...]:
        """Carry out one command."""
        return self._functions[command](self, child)

    def _offer(self, child: ChildProcess) -> tuple[Event, ...]:
        slot = self._slots[child.slot]
        if child.last or (slot.child is not child and slot.successor not in (None, child)):
            return (Event.RETIRE,)
        if slot.child is not child:
            slot.successor = child  # it had seceded: the next run to secede finds this child ready
        return ()

    def _interrupt(self, child: ChildProcess) -> tuple[Event, ...]:
        child.interrupt()
        child.later(self._grace, self._look_if_over, child, child.run)
        return ()

    def _look_if_over(self, child: ChildProcess, run: Run | None) -> None:
        if child.run is run:
            self._on_overdue(child)

    def _kill(self, child: ChildProcess) -> tuple[Event, ...]:
        child.kill()
        if not child.pid:
            self._nursery.drop(child)
        return ()

    def _dismiss(self, child: ChildProcess) -> tuple[Event, ...]:
        child.runs.finish()  # it exits by itself, as a program does
        child.later(_LEAVE, self._look_if_over, child, None)
        if child.last:
            self._on_event("replace", child.slot, child.pid)
        return ()

    def _fail_start(self, child: ChildProcess) -> tuple[Event, ...]:
        if not child.orphaned:  # otherwise its template was lost: it is simply started again
            self._backoff.fail()
            slot = self._slots[child.slot]
            slot.wanted = slot.wanted and slot.child is not child
        return ()

    def _count_crash(self, child: ChildProcess) -> tuple[Event, ...]:
        if not child.orphaned:
            self._slots[child.slot].crashes += 1
        return ()

    _functions: ClassVar[dict[Command, Callable[[Commands, ChildProcess], tuple[Event, ...]]]] = {
        Command.OFFER: _offer,
        Command.INTERRUPT: _interrupt,
        Command.KILL: _kill,
        Command.DISMISS: _dismiss,
        Command.REPORT_FAILED_START: _fail_start,
        Command.COUNT_CRASH: _count_crash,
    }
