"""A home that is told of events, and the answers that it gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyward_dask.shared.events import Answer, Call, CallId, Event
from skyward_dask.shared.home import Applied, Home


class Played:
    """A home and its history: each call is answered once, and nothing else is.

    Attributes
    ----------
    answers : dict
        By the ids of their calls.
    history : list of (event, what came of it)
    """

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        self.home = Home(kind, options)
        self.statistics = self.home.statistics
        self.asked: set[CallId] = set()
        self.answers: dict[CallId, Answer] = {}
        self.history: list[tuple[Event, Applied]] = []

    def apply(self, event: Event) -> None:
        if isinstance(event, Call):
            self.asked.add(event.id)
        applied = self.home.apply(event)
        self.history.append((event, applied))
        assert not applied.answers.keys() & self.answers.keys(), "answered twice"
        assert applied.answers.keys() <= self.asked
        self.answers |= applied.answers
        assert len(self.asked) - len(self.answers) == self.home.statistics()["waiting"]
