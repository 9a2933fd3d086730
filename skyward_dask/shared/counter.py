"""A counter's state: one whole number."""

from __future__ import annotations

from skyward_dask.shared.calls import Ticket
from skyward_dask.shared.state import State


class CounterState(State):
    """A number."""

    def __init__(self) -> None:
        self._value = 0

    def value(self, ticket: Ticket) -> int:
        return self._value

    def increment(self, ticket: Ticket, n: int) -> int:
        self._value += n
        return self._value

    def reset(self, ticket: Ticket, value: int) -> None:
        self._value = value

    def compare_and_set(self, ticket: Ticket, expected: int, value: int) -> bool:
        if self._value != expected:
            return False
        self._value = value
        return True
