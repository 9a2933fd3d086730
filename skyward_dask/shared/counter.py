"""A counter's state: one whole number."""

from __future__ import annotations

from skyward_dask.shared.events import Call
from skyward_dask.shared.state import State


class CounterState(State):
    """A number."""

    reads = frozenset({"value"})

    def __init__(self) -> None:
        super().__init__()
        self._value = 0

    def value(self, call: Call) -> int:
        return self._value

    def increment(self, call: Call, n: int) -> int:
        self._value += n
        return self._value

    def reset(self, call: Call, value: int) -> None:
        self._value = value

    def compare_and_set(self, call: Call, expected: int, value: int) -> bool:
        if self._value != expected:
            return False
        self._value = value
        return True
