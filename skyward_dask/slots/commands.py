"""What `lifecycle` commands about a child, carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from skyward_dask.slots.backoff import Backoff
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.lifecycle import Command, Event
from skyward_dask.slots.nursery import Nursery
from skyward_dask.slots.runs import Run
from skyward_dask.slots.slot import Slot

#: Seconds that an idle child has to leave by itself: most leave in 50 ms, and what an atexit function
#: does may take its time.
_LEAVE = 2.0


class Commands:
    """Carries commands out; each has events that follow from it.

    Parameters
    ----------
    slots : sequence of Slot
    nursery : Nursery
    backoff : Backoff
    grace : float
        Seconds between the interruption of a run and its kill.
    on_event : callable
        Takes an event, the index of a slot and a process id.
    on_overdue : callable
        Takes a child that has had its time to end a run, or to leave.
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
            slot.successor = child  # it had seceded: so the next one that does finds a child ready
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
        child.runs.finish()  # it leaves by itself, as a program does
        child.later(_LEAVE, self._look_if_over, child, None)
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

    _functions: ClassVar[dict[Command, Callable[[Commands, ChildProcess], tuple[Event, ...]]]] = {
        Command.OFFER: _offer,
        Command.INTERRUPT: _interrupt,
        Command.KILL: _kill,
        Command.DISMISS: _dismiss,
        Command.REPORT_FAILED_START: _fail_start,
        Command.COUNT_CRASH: _count_crash,
    }
