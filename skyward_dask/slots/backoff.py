"""How long to wait before a child is started after others couldn't start."""

from __future__ import annotations

#: Seconds before the second attempt; each that fails doubles it. Arbitrary: short for a person, long for
#: a machine that can start ten processes meanwhile.
_FIRST = 0.1
#: Seconds at the most: what waits for a slot hears within that time that it can't be had.
_LONGEST = 5.0


class Backoff:
    """Counts failures in a row."""

    def __init__(self) -> None:
        self._failures = 0

    def fail(self) -> None:
        self._failures += 1

    def succeed(self) -> None:
        self._failures = 0

    @property
    def delay(self) -> float:
        """Seconds to wait now."""
        return min(_LONGEST, _FIRST * 2 ** (self._failures - 1)) if self._failures else 0.0
