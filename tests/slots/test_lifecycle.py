"""The table of a slot's life, walked at random: it never gets stuck, and late words change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward_dask.slots.lifecycle import TABLE, Command, Event, Life, State


def test_a_death_of_an_earlier_child_changes_nothing() -> None:
    """An event that names an earlier generation is dropped."""
    life = Life()
    life.apply(Event.WANT, 0)
    life.apply(Event.READY, 1)
    life.apply(Event.DIED, 1)
    assert (life.state, life.generation) == (State.STARTING, 2)
    for event in Event:
        assert life.apply(event, 1) == ()
    assert (life.state, life.generation) == (State.STARTING, 2)


def test_an_impossible_event_is_a_defect_that_is_named() -> None:
    """What the table doesn't have is never silently taken."""
    with pytest.raises(LookupError, match="vacant can't take 'check in'"):
        Life().apply(Event.CHECK_IN, 0)


def test_every_state_can_be_closed() -> None:
    """Whatever a slot does, its pool can end."""
    assert {state for state, event in TABLE if event is Event.CLOSE} == set(State)


@given(st.lists(st.sampled_from(Event), max_size=60))
def test_children_and_kills_are_balanced(events: list[Event]) -> None:
    """At most one child at a time, whatever the order of events; a closed slot starts none."""
    life, children, closed = Life(), 0, False
    for event in events:
        if (life.state, event) not in TABLE or (closed and event is Event.WANT):
            continue
        if event in (Event.DIED, Event.LEAVE):
            children -= 1
        commands = life.apply(event, life.generation)
        children += commands.count(Command.SPAWN)
        closed = closed or event is Event.CLOSE
        assert children == (life.state is not State.VACANT)
        assert not (closed and Command.SPAWN in commands)
