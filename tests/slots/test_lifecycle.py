"""The table of a child's life; `test_walk` has real pools go through it at random."""

from __future__ import annotations

import pytest

from skyward_dask.slots.lifecycle import TABLE, Command, Event, State, step


def test_an_impossible_event_is_a_defect_that_is_named() -> None:
    """What the table doesn't have is never silently taken."""
    with pytest.raises(LookupError, match="starting can't take 'check in'"):
        step(State.STARTING, Event.CHECK_IN)


def test_every_living_child_can_be_ended_and_can_die() -> None:
    """Whatever it does, its pool can end, and its death is news."""
    living = set(State) - {State.GONE}
    assert {state for state, event in TABLE if event is Event.CLOSE} == set(State)
    assert {state for state, event in TABLE if event is Event.DIED} == living
    assert all(after is State.GONE for (_, event), (after, _) in TABLE.items() if event is Event.DIED)


def test_nobody_comes_back_from_a_kill() -> None:
    """Late words of a child that is being killed, or is gone, change nothing."""
    for (state, event), (after, commands) in TABLE.items():
        if state in (State.KILLING, State.GONE):
            assert after in (state, State.GONE) and not commands, (state, event)


def test_each_kill_follows_from_a_state_that_lives() -> None:
    """A child is killed once, and a crash counted once."""
    for (state, _), (after, commands) in TABLE.items():
        assert (Command.KILL in commands) == (after is State.KILLING and state is not State.KILLING)
        assert (Command.COUNT_CRASH in commands) == (
            after is State.GONE and state in (State.IDLE, State.BUSY)
        )
