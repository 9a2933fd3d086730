"""How long to wait before starting a child after others failed to start."""

from __future__ import annotations

#: Seconds before the second attempt; each failure doubles it. Arbitrary: short for a person, long for a
#: machine, which can start ten processes in that time.
_FIRST = 0.1
#: The longest delay in seconds: a run that waits for a slot learns within that time that it can't have one.
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
