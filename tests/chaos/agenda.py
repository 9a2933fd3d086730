"""What is to be done at which moment."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any


class Agenda:
    """Functions and the moments at which they are due, in the time of `time.monotonic`."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, function: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._entries, (time.monotonic() + seconds, next(self._order), function, args))

    def carry_out(self) -> float:
        """Do what is due; returns the seconds until the next is."""
        while self._entries and self._entries[0][0] <= time.monotonic():
            _, _, function, args = heapq.heappop(self._entries)
            function(*args)
        # a second, if there is nothing: arbitrary
        return max(0.0, self._entries[0][0] - time.monotonic()) if self._entries else 1.0
