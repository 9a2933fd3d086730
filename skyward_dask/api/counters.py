"""A counter that all tasks and clients of a cluster share."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, NoReturn

from skyward_dask.api.handles import Handle, Steps, both, one
from skyward_dask.errors import OperatorError
from skyward_dask.shared.asks import Ask


class Counter(Handle):
    """An integer: see `counter`."""

    kind = "counter"

    def _value(self) -> Steps[int]:
        """The current value."""
        return one(Ask("value", reads=True))

    get_value, value_async = both(_value)

    @property
    def value(self) -> int:
        """The current value."""
        return self.get_value()

    if not TYPE_CHECKING:  # there, they are errors already

        def _refuse(self, other: object) -> NoReturn:
            raise OperatorError(
                f"{self!r} is shared, and not a number itself: compute with its `.value`; change it with "
                "`.increment(n)`, `.decrement(n)` or `.reset(value)`."
            )

        __add__ = __radd__ = __sub__ = __rsub__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
        value = value.setter(_refuse)

    def _increment(self, n: int = 1) -> Steps[int]:
        """Add `n`, and return the new value."""
        return one(Ask("increment", (index(n),)))

    increment, increment_async = both(_increment)

    def _decrement(self, n: int = 1) -> Steps[int]:
        """Subtract `n`, and return the new value."""
        return one(Ask("increment", (-index(n),)))

    decrement, decrement_async = both(_decrement)

    def _reset(self, value: int = 0) -> Steps[None]:
        """Set the value."""
        yield Ask("reset", (index(value),))

    reset, reset_async = both(_reset)

    def _compare_and_set(self, expected: int, value: int) -> Steps[bool]:
        """Set the value if it is `expected`, and return whether it was."""
        return one(Ask("compare_and_set", (index(expected), index(value))))

    compare_and_set, compare_and_set_async = both(_compare_and_set)

    def __int__(self) -> int:
        return self.get_value()

    __index__ = __int__
