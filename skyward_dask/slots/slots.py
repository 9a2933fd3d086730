"""Which children there are, and which slot each of them holds.

Each event of a child goes through the child's table (`apply`); then each slot is made to hold a child that
can work (`settle`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from skyward_dask.errors import SlotStartFailed
from skyward_dask.slots.backoff import Backoff
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.commands import Commands
from skyward_dask.slots.lifecycle import Event, State
from skyward_dask.slots.nursery import Nursery
from skyward_dask.slots.preparation import Preparation
from skyward_dask.slots.slot import AWAY, Slot


class Slots:
    """The slots of a pool, and all its children. For the pool's loop.

    Parameters
    ----------
    size : int
        How many runs can have a slot at once.
    preparation : Preparation
    new_child : callable
        Makes the child for a slot, given its index.
    nursery : Nursery
        Starts and buries children.
    grace : float
        Seconds between interrupting a run and killing it.
    eager : bool
        Start the children now; otherwise each when it is first needed.
    on_event : callable
        Takes an event, the index of a slot and a process id.
    changed : callable
        Called when a child has changed by itself.
    """

    def __init__(
        self,
        size: int,
        preparation: Preparation,
        new_child: Callable[[int], ChildProcess],
        nursery: Nursery,
        grace: float,
        eager: bool,
        on_event: Callable[[str, int, int], None],
        changed: Callable[[], None],
    ) -> None:
        self._size, self._preparation, self._new_child = size, preparation, new_child
        self._nursery, self._on_event, self._changed = nursery, on_event, changed
        self._slots = [Slot(index, wanted=eager) for index in range(size)]
        self._children: set[ChildProcess] = set()
        self._unsettled = dict.fromkeys(self._slots)
        self._idle: dict[Slot, None] = {}
        self._unwanted: dict[Slot, None] = {}  # those without a child, until one is wanted
        self._starting: list[asyncio.Future[None]] = []  # callers that wait until a child is ready
        self._backoff = Backoff()
        self._commands = Commands(self._slots, nursery, self._backoff, grace, on_event, self._overdue)
        self._is_ending = False

    def of(self, child: ChildProcess) -> Slot:
        """The slot that a child was made for."""
        return self._slots[child.slot]

    @property
    def children(self) -> tuple[ChildProcess, ...]:
        """All children that aren't buried."""
        return tuple(self._children)

    def present(self) -> list[Slot]:
        """The slots that the pool should have, and any further ones that still have a child."""
        return [slot for slot in self._slots if slot.index < self._size or slot.child is not None]

    # --- what happens to children ------------------------------------------------------------------

    def apply(self, child: ChildProcess, event: Event) -> None:
        """Apply an event and carry out what follows from it."""
        events = [event]
        while events:
            for command in child.apply(events.pop()):
                events += self._commands.carry_out(command, child)
        self._unsettled[self.of(child)] = None

    def _overdue(self, child: ChildProcess) -> None:
        self.apply(child, Event.LIMIT)
        self._changed()

    def came_up(self, child: ChildProcess) -> None:
        """A child is ready."""
        self._backoff.succeed()
        child.cancel_timers()
        self.apply(child, Event.READY)
        self._on_event("start", child.slot, child.pid)
        self._end_waits(lambda waiting: waiting.set_result(None))

    def closed_its_socket(self, child: ChildProcess) -> None:
        """A child is dead, or has closed its sockets: then it is killed.

        A process that is exiting already keeps its exit code.
        """
        if child.death is None and child.state is not State.LEAVING:
            child.kill()
            self._nursery.expect_burial(child)

    def buried(self, child: ChildProcess) -> SlotStartFailed | None:
        """A child is dead, with all that it started, or couldn't be started.

        Returns why no run can get a child, if there is none, and only ones are starting that try again.
        """
        before = child.state
        self._children.discard(child)
        self.apply(child, Event.DIED)
        event = {State.STARTING: "failed-start", State.IDLE: "crash", State.BUSY: "crash"}.get(before)
        if event is None or child.orphaned:
            return None
        self._on_event(event, child.slot, child.pid)
        return self._failure_if_hopeless(child) if before is State.STARTING else None

    def _failure_if_hopeless(self, child: ChildProcess) -> SlotStartFailed | None:
        found = (child for slot in self._slots[: self._size] for child in (slot.child, slot.successor))
        children = (child for child in found if child is not None and child.state not in AWAY)
        # there is always one that tries again if several runs wait: they would wait for ever
        if not all(child.state is State.STARTING and child.retries for child in children):
            return None
        failure = child.start_failure()
        self._end_waits(lambda waiting: waiting.set_exception(failure))
        return failure

    # --- slots hold children -------------------------------------------------------------------------

    @property
    def has_idle(self) -> bool:
        """Whether a child can be given a run."""
        return bool(self._idle)

    def take_idle(self, max_runs: int | None) -> ChildProcess:
        """A child for a run, its last one if it has had so many: the one that ended a run last is warm."""
        slot = self._idle.popitem()[0]
        child = slot.child
        assert child is not None
        child.apply(Event.CHECK_OUT)
        if child.runs_done + 1 == max_runs:
            child.last = True
            self._unsettled[slot] = None  # it gets a successor now
        return child

    def free(self, child: ChildProcess) -> None:
        """The child continues without its slot, which gets another child."""
        slot = self.of(child)
        if slot.child is child:
            slot.child = None
            self._unsettled[slot] = None

    def want(self, count: int) -> None:
        """Have `count` children start, if there are slots without one."""
        count += len(self._starting)
        if not count or not self._unwanted or self._is_ending:
            return
        count -= sum(slot.child is not None and slot.child.state is State.STARTING for slot in self._slots)
        for slot in sorted(self._unwanted, key=lambda slot: slot.index)[: max(0, count)]:
            slot.wanted = True
            self._unsettled[slot] = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing has changed since `settle`."""
        return not self._unsettled

    def settle(self) -> None:
        """Settle the slots whose children have changed."""
        while self._unsettled:
            self._settle(self._unsettled.popitem()[0])

    def _settle(self, slot: Slot) -> None:
        """Make the slot hold a child that can work; start one if it lacks one."""
        slot.let_go()
        if not self._is_ending:
            self._retire_surplus(slot)
            if slot.wanted and slot.lacks_child:
                self._start_child(slot)
        _note(slot, self._idle, slot.is_idle and not self._is_ending)
        _note(slot, self._unwanted, slot.child is None and not slot.wanted and slot.index < self._size)

    def _retire_surplus(self, slot: Slot) -> None:
        """End the children of a slot above the pool's size, except one that has a run."""
        if slot.index < self._size:
            return
        for child in (slot.successor, slot.child):
            if child is not None and child.state in (State.IDLE, State.STARTING):
                self.apply(child, Event.RETIRE)

    def _start_child(self, slot: Slot) -> None:
        child, delay = self._new_child(slot.index), self._backoff.delay
        child.retries = delay > 0
        slot.take(child)
        self._children.add(child)
        self._nursery.start(child, delay)

    # --- changes -------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Change the number of slots; a slot that is removed finishes its run first."""
        self._size = size
        self._slots += [Slot(index, wanted=True) for index in range(len(self._slots), size)]
        for slot in self._slots:
            slot.wanted = slot.index < size
            self._unsettled[slot] = None

    def renew(self, backend_argument: bytes) -> None:
        """Replace every child, busy ones after their runs: what they know about this process is stale."""
        self._preparation = replace(self._preparation, backend_argument=backend_argument)
        self._nursery.renew(self._preparation)
        for child in self.children:
            child.last = True
            if child.state is State.IDLE:
                self.apply(child, Event.RETIRE)
            self._unsettled[self.of(child)] = None

    async def wait_ready(self) -> None:
        """Wait until one child is ready; raises `SlotStartFailed` if none can start."""
        if any(child.state in (State.IDLE, State.BUSY) for child in self._children):
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._starting.append(waiting)
        self._changed()
        await waiting

    def _end_waits(self, how: Callable[[asyncio.Future[None]], object]) -> None:
        waits, self._starting = self._starting, []
        for waiting in waits:
            if not waiting.done():
                how(waiting)

    def end(self) -> None:
        """End all children, and start no others."""
        self._is_ending = True
        self._end_waits(lambda waiting: waiting.cancel())
        for child in self.children:
            self.apply(child, Event.CLOSE)


def _note(slot: Slot, where: dict[Slot, None], is_so: bool) -> None:
    if is_so:
        where[slot] = None
    else:
        where.pop(slot, None)
