"""A slot's life as a table: an event and a state give a next state and commands. No I/O.

A *generation* numbers the children of a slot. An event that names an earlier one comes from a child that
is gone, and is dropped: so nobody has to ask whether a late word still counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """Where a slot stands."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and each run looks the table up twice

    VACANT = "vacant"
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    KILLING = "killing"


class Event(Enum):
    """What happens to a slot."""

    __hash__ = object.__hash__

    WANT = "want"
    READY = "ready"
    CHECK_OUT = "check out"
    CHECK_IN = "check in"
    DIED = "died"
    CLOSE = "close"


class Command(Enum):
    """What the pool has to do about it."""

    __hash__ = object.__hash__

    SPAWN = "spawn"
    OFFER = "offer"
    REPORT_FAILED_START = "report failed start"
    COUNT_CRASH = "count crash"
    KILL = "kill"


TABLE: dict[tuple[State, Event], tuple[State, tuple[Command, ...]]] = {
    (State.VACANT, Event.WANT): (State.STARTING, (Command.SPAWN,)),
    (State.STARTING, Event.READY): (State.IDLE, (Command.OFFER,)),
    (State.STARTING, Event.DIED): (State.VACANT, (Command.REPORT_FAILED_START,)),
    (State.IDLE, Event.CHECK_OUT): (State.BUSY, ()),
    (State.IDLE, Event.DIED): (State.STARTING, (Command.COUNT_CRASH, Command.SPAWN)),
    (State.BUSY, Event.CHECK_IN): (State.IDLE, (Command.OFFER,)),
    (State.BUSY, Event.DIED): (State.STARTING, (Command.COUNT_CRASH, Command.SPAWN)),
    (State.STARTING, Event.CLOSE): (State.KILLING, (Command.KILL,)),
    (State.IDLE, Event.CLOSE): (State.KILLING, (Command.KILL,)),
    (State.BUSY, Event.CLOSE): (State.KILLING, (Command.KILL,)),
    (State.VACANT, Event.CLOSE): (State.VACANT, ()),
    (State.KILLING, Event.DIED): (State.VACANT, ()),
    # words of a child that is being killed, which were on their way
    (State.KILLING, Event.READY): (State.KILLING, ()),
    (State.KILLING, Event.CHECK_IN): (State.KILLING, ()),
    (State.KILLING, Event.CLOSE): (State.KILLING, ()),
}


@dataclass(slots=True)
class Life:
    """The state of one slot, and the generation of its present child (0: none yet)."""

    state: State = State.VACANT
    generation: int = 0

    def apply(self, event: Event, generation: int) -> tuple[Command, ...]:
        """Take the event of the child of that generation; returns what to do, in order.

        Raises
        ------
        LookupError
            The event can't happen in this state: a defect of the pool.
        """
        if generation != self.generation:
            return ()
        try:
            self.state, commands = TABLE[self.state, event]
        except KeyError:
            raise LookupError(f"a slot that is {self.state.value} can't take '{event.value}'") from None
        if Command.SPAWN in commands:
            self.generation += 1
        return commands
