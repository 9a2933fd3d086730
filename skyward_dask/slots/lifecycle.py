"""A child's life as a table: a state and an event give the next state and commands. No I/O.

The pool reports what happens, carries out the commands, and makes each slot hold a child that can work.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """The state of a child."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and each run looks the table up twice

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    KILLING = "killing"
    LEAVING = "leaving"
    GONE = "gone"


class Event(Enum):
    """What happens to a child."""

    __hash__ = object.__hash__

    READY = "ready"
    CHECK_OUT = "check out"
    CHECK_IN = "check in"
    STOP = "stop"
    LIMIT = "limit"
    RETIRE = "retire"
    CLOSE = "close"
    DIED = "died"


class Command(Enum):
    """What the pool has to do about it."""

    __hash__ = object.__hash__

    OFFER = "offer"
    INTERRUPT = "interrupt"
    KILL = "kill"
    DISMISS = "dismiss"
    REPORT_FAILED_START = "report failed start"
    COUNT_CRASH = "count crash"


_KILL = (State.KILLING, (Command.KILL,))
_KILLING: tuple[State, tuple[Command, ...]] = (State.KILLING, ())
_LEAVING: tuple[State, tuple[Command, ...]] = (State.LEAVING, ())
_GONE: tuple[State, tuple[Command, ...]] = (State.GONE, ())

TABLE: dict[tuple[State, Event], tuple[State, tuple[Command, ...]]] = {
    (State.STARTING, Event.READY): (State.IDLE, (Command.OFFER,)),
    (State.STARTING, Event.RETIRE): _KILL,
    (State.STARTING, Event.CLOSE): _KILL,
    (State.STARTING, Event.DIED): (State.GONE, (Command.REPORT_FAILED_START,)),
    (State.IDLE, Event.CHECK_OUT): (State.BUSY, ()),
    (State.IDLE, Event.RETIRE): (State.LEAVING, (Command.DISMISS,)),
    (State.IDLE, Event.CLOSE): (State.LEAVING, (Command.DISMISS,)),
    (State.IDLE, Event.DIED): (State.GONE, (Command.COUNT_CRASH,)),
    (State.BUSY, Event.CHECK_IN): (State.IDLE, (Command.OFFER,)),
    (State.BUSY, Event.STOP): (State.STOPPING, (Command.INTERRUPT,)),
    (State.BUSY, Event.LIMIT): _KILL,
    # the child is in its last run: the request to retire waits until the child checks in
    (State.BUSY, Event.RETIRE): (State.BUSY, ()),
    (State.BUSY, Event.CLOSE): _KILL,
    (State.BUSY, Event.DIED): (State.GONE, (Command.COUNT_CRASH,)),
    # its run ended while it was being stopped; an interrupted interpreter is not used again
    (State.STOPPING, Event.CHECK_IN): _KILL,
    (State.STOPPING, Event.LIMIT): _KILL,
    (State.STOPPING, Event.CLOSE): _KILL,
    (State.STOPPING, Event.STOP): (State.STOPPING, ()),
    (State.STOPPING, Event.RETIRE): (State.STOPPING, ()),
    (State.STOPPING, Event.DIED): _GONE,
    # events of a child that is being killed, which were on their way
    (State.KILLING, Event.READY): _KILLING,
    (State.KILLING, Event.CHECK_IN): _KILLING,
    (State.KILLING, Event.STOP): _KILLING,
    (State.KILLING, Event.LIMIT): _KILLING,
    (State.KILLING, Event.RETIRE): _KILLING,
    (State.KILLING, Event.CLOSE): _KILLING,
    (State.KILLING, Event.DIED): _GONE,
    (State.LEAVING, Event.RETIRE): _LEAVING,
    (State.LEAVING, Event.CLOSE): _LEAVING,
    (State.LEAVING, Event.LIMIT): _KILL,
    (State.LEAVING, Event.DIED): _GONE,
    # the caller gives back a child whose death has been handled; a deadline of such a child passes
    (State.GONE, Event.CHECK_IN): _GONE,
    (State.GONE, Event.STOP): _GONE,
    (State.GONE, Event.LIMIT): _GONE,
    (State.GONE, Event.RETIRE): _GONE,
    (State.GONE, Event.CLOSE): _GONE,
}


def step(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """What follows from an event.

    Raises
    ------
    LookupError
        The event can't happen in this state: a bug in the pool.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise LookupError(f"a child that is {state.value} can't take '{event.value}'") from None
