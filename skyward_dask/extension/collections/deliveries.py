"""Deliveries: which answers have come from each home, and how often some were lost on their way."""

from __future__ import annotations

from collections import deque
from contextlib import suppress


class Deliveries:
    """The deliveries to one process, by the keys of the homes that answer.

    Notes
    -----
    `note` and `take` may be called in any thread, the rest only on the loop.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self._done: dict[str, deque[int]] = {}

    def attempt(self, home: str) -> int:
        """How often answers of this home were lost; a call says so, as a home drops what comes late."""
        return self._attempts.get(home, 0)

    def note_lost(self, home: str, attempt: int) -> None:
        """The answer to a call of this attempt was lost, as all that were under way with it."""
        if self.attempt(home) == attempt:
            self._attempts[home] = attempt + 1

    def note(self, home: str, number: int) -> None:
        """The answer to the call of this number has come."""
        self._done.setdefault(home, deque()).append(number)

    def take(self, home: str) -> tuple[int, ...]:
        """The numbers noted since: the home is told that it need no longer keep their answers."""
        found, done = self._done.get(home), list[int]()
        while found:
            with suppress(IndexError):  # another thread took the last
                done.append(found.popleft())
        return tuple(done)
