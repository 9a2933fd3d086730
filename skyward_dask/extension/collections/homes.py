"""The homes that live in this process, the parties whose calls they take, and who waits for an answer.

A home takes plain events and returns answers by the ids of their calls (`skyward_dask.shared.home`). This
module has what a home must not know: the lock that puts events into one order, and who gets the answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skyward_dask.shared.events import Answer, Call, CallId, Close, Event, Forget
from skyward_dask.shared.home import Home

logger = logging.getLogger(__name__)

#: Takes the answer to a call.
Reply = Callable[[Answer], None]


@dataclass(slots=True)
class _Place:
    """A home, the lock that lets in one event at a time, and how many calls have come."""

    home: Home
    lock: threading.Lock = field(default_factory=threading.Lock)
    operations: int = 0


class Homes:
    """The homes of one process.

    Notes
    -----
    Thread-safe. Replies are called without a lock, in the thread that caused them.
    """

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._parties: set[str] = set()
        self._replies: dict[CallId, Reply] = {}

    def add(self, key: str, kind: str, options: Mapping[str, Any]) -> Home:
        """Create an empty home."""
        home = Home(kind, options)
        self._places[key] = _Place(home)
        return home

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def call(self, key: str, call: Call, reply: Reply) -> bool:
        """Have a home carry a call out; `reply` is called with the answer, now or later.

        Returns False if there is no such home.
        """
        if (place := self._places.get(key)) is None:
            return False
        self._replies[call.id] = reply
        place.operations += 1
        self._apply(place, call)
        return True

    def apply(self, key: str, event: Event) -> bool:
        """Apply an event without an answer to a home; returns False if there is no such home."""
        if (place := self._places.get(key)) is None:
            return False
        self._apply(place, event)
        return True

    def _apply(self, place: _Place, event: Event) -> None:
        with place.lock:
            answers, released = place.home.apply(event)
        for call_id, answer in answers.items():
            self._replies.pop(call_id)(answer)
        for held in released:
            logger.warning("%s: it is released", held)

    def end(self, key: str, close: Close) -> None:
        """End a home in this process."""
        if (place := self._places.pop(key, None)) is not None:
            self._apply(place, close)

    def end_all(self, close: Close) -> None:
        """This process leaves the cluster: all callers that wait here or still call are told."""
        for place in list(self._places.values()):
            self._apply(place, close)

    def statistics(self) -> dict[str, dict[str, int]]:
        """The statistics of each home, by its key."""
        return {
            key: {"operations": place.operations, **place.home.statistics()}
            for key, place in list(self._places.items())
        }

    # --- parties -----------------------------------------------------------------------------------------

    def know(self, party: str) -> None:
        """The scheduler knows this party: homes accept its calls from now on."""
        self._parties.add(party)

    def knows(self, party: str) -> bool:
        return party in self._parties

    def forget(self, gone: Forget) -> None:
        """A party has left: give back what its callers hold here."""
        self._parties.discard(gone.party)
        for place in list(self._places.values()):
            self._apply(place, gone)
