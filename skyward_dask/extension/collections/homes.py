"""The homes that live in this process, the parties whose calls they take, and who waits for an answer.

A home takes plain events and returns answers by the ids of their calls (`skyward_dask.shared.home`). This
module has what a home must not know: the lock that puts events into one order, and who gets the answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from time import time
from typing import Any

from skyward_dask.shared.copying import Message
from skyward_dask.shared.events import Answer, Call, CallId, Close, Deposed, Event, Forget, Moved
from skyward_dask.shared.home import Home
from skyward_dask.shared.host import Host, Role

logger = logging.getLogger(__name__)

#: Takes the answer to a call; or, for another event, hears that it was applied.
Reply = Callable[[Answer], None]
Told = tuple[Reply, Answer]

_DEPOSED: Answer = False, Deposed()


@dataclass(slots=True)
class _Entry:
    """A home with its log, the lock that lets in one event at a time, and how many calls have come."""

    host: Host[Told]
    lock: threading.Lock = field(default_factory=threading.Lock)
    operations: int = 0


class Homes:
    """The homes of one process.

    Parameters
    ----------
    on_news : callable
        Called, in any thread, with the key of a home that may have something for its standby.

    Notes
    -----
    Thread-safe. Replies are called without a lock, in the thread that caused them.
    """

    def __init__(self, on_news: Callable[[str], None] = lambda key: None) -> None:
        self._on_news = on_news
        self._entries: dict[str, _Entry] = {}
        self._parties: set[str] = set()
        self._replies: dict[CallId, Reply] = {}

    def add(self, key: str, home: Home, epoch: int = 1, standby: str = "", chosen: int = 0) -> None:
        """Let events come to a home; the standby, if there is one, has all of it."""
        self._entries[key] = _Entry(Host(home, epoch, standby, chosen))

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def apply(self, key: str, event: Event, reply: Reply | None = None) -> bool:
        """Apply an event to a home; `reply` is called with a call's answer, or with None, now or later.

        Returns False if there is no such home, or it takes nothing from callers any more.
        """
        if (entry := self._entries.get(key)) is None:
            return False
        with entry.lock:
            if entry.host.is_deposed or (entry.host.gives_way and reply is not None):
                return False
            told = self._carry_out(entry, event, reply)
            has_news = entry.host.can_send()
            if told and entry.host.holds():
                for each in told:
                    entry.host.hold(each)
                told = []
        if has_news:
            self._on_news(key)
        for answered, answer in told:
            answered(answer)
        return True

    def _carry_out(self, entry: _Entry, event: Event, reply: Reply | None) -> list[Told]:
        home = entry.host.home
        if isinstance(event, Call):
            entry.operations += 1
            assert reply is not None
            if home.reads(event.operation):
                return [(reply, home.read(event))]
            if home.is_late(event):
                return [(reply, (False, Moved()))]
            self._replies[event.id] = reply
        applied = entry.host.apply(event)
        for held in applied.released:
            logger.warning("%s: it is released", held)
        # a call that has moved here, and whose caller hasn't asked again yet, is answered when it does
        told = [
            (found, answer)
            for call_id, answer in applied.answers.items()
            if (found := self._replies.pop(call_id, None)) is not None
        ]
        return told if reply is None or isinstance(event, Call) else [*told, (reply, (True, None))]

    def end(self, key: str, close: Close) -> None:
        """End a home in this process: nothing in it is worth waiting for."""
        if (entry := self._entries.pop(key, None)) is not None:
            with entry.lock:
                told = entry.host.depose() + self._carry_out(entry, close, None)
            for reply, answer in told:
                reply(answer)

    def end_all(self, close: Close) -> None:
        """This process leaves the cluster: callers that wait here or still call are told.

        Where a standby takes over, they go there.
        """
        for key, entry in list(self._entries.items()):
            if entry.host.role in (Role.JOINING, Role.IN_STEP, Role.GIVING_WAY, Role.PARTING):
                self.depose(key)
            else:
                self.apply(key, close)

    def nbytes(self) -> dict[str, int]:
        """About how many bytes each home has, by its key."""
        return {key: found["nbytes"] for key, found in self.statistics().items()}

    def statistics(self) -> dict[str, dict[str, Any]]:
        """The statistics of each home, by its key."""
        found = {}
        for key, entry in list(self._entries.items()):
            with entry.lock:
                found[key] = {"operations": entry.operations, **entry.host.home.statistics()}
        return found

    # --- the standbys of these homes, elsewhere ----------------------------------------------------------

    def fill(self, key: str, epoch: int, standby: str, kept: int = 0) -> bool:
        """The directory has chosen a standby; none, if it is empty. That of the epoch `kept` stays."""
        is_news = self._decide(key, lambda host: host.fill(epoch, standby, kept))
        self._on_news(key)
        return is_news

    def next(self, key: str) -> tuple[str, Message] | None:
        """The next message for a standby, and where that is."""
        if (entry := self._entries.get(key)) is None:
            return None
        with entry.lock:
            return entry.host.next()

    def confirmed(self, key: str, epoch: int) -> tuple[bool, list[Told]]:
        """The standby has taken a message; returns whether it is in step with that, and whom to tell what."""
        if (entry := self._entries.get(key)) is None:
            return False, []
        with entry.lock:
            is_in_step = entry.host.confirmed(epoch)
            return is_in_step, entry.host.released()

    def granted(self, key: str, epoch: int) -> None:
        """The directory knows that the standby is in step."""
        self._decide(key, lambda host: host.granted(epoch))

    def sends(self, key: str, epoch: int) -> bool:
        """Whether the home still has the standby of that epoch."""
        entry = self._entries.get(key)
        return entry is not None and entry.host.lane(epoch) is not None

    def part(self, key: str, epoch: int) -> bool:
        """The standby of that epoch is lost; returns whether that is news."""
        return self._decide(key, lambda host: host.part(epoch))

    def give_way(self, key: str, epoch: int, chosen: int, then: Callable[[], None]) -> bool:
        """Take nothing more from callers; `then` is called when the standby has all, or won't get it.

        Returns False if the host goes on.
        """

        def change(host: Host[Told]) -> bool:
            gives_way = host.give_way(epoch, chosen)
            if gives_way:
                host.hold((lambda _: then(), (True, None)))
            return gives_way

        return self._decide(key, change)

    def hand_over(self, key: str, epoch: int) -> Home | None:
        """Take a home that has given way from here; None if it stays, and takes calls again."""
        if (entry := self._entries.get(key)) is None:
            return None
        with entry.lock:  # not until it is deposed: as long as it gives way, no caller changes it
            has_given_way = entry.host.finish_giving_way(epoch)
        return entry.host.home if has_given_way and self.depose(key) else None

    def _decide(self, key: str, change: Callable[[Host[Told]], bool | None]) -> bool:
        """Change a home's host, and answer whom that releases; returns what `change` does, if it is here."""
        if (entry := self._entries.get(key)) is None:
            return False
        with entry.lock:
            is_news = change(entry.host)
            told = entry.host.released()
        for reply, answer in told:
            reply(answer)
        return bool(is_news)

    def depose(self, key: str, epoch: float = inf) -> bool:
        """Another home takes over in this epoch: who waits is told to ask there.

        Returns False if there is no home here, or it is of this epoch itself, or of a later one.
        """
        entry = self._entries.get(key)
        is_old = entry is not None and entry.host.epoch < epoch
        if entry is not None and is_old:
            del self._entries[key]
            with entry.lock:
                waiting = [self._replies.pop(call_id, None) for call_id in entry.host.home.waiting()]
                replies = [reply for reply, _ in entry.host.depose()]
            for reply in (*replies, *waiting):
                if reply is not None:
                    reply(_DEPOSED)
        return is_old

    # --- parties -----------------------------------------------------------------------------------------

    def know(self, party: str) -> None:
        """The scheduler knows this party: homes accept its calls from now on."""
        self._parties.add(party)

    def knows(self, party: str) -> bool:
        return party in self._parties

    def forget(self, gone: Forget) -> None:
        """A party has left: give back what its callers hold here."""
        self._parties.discard(gone.party)
        for key in list(self._entries):
            self.apply(key, gone)

    def keep_only(self, key: str, parties: Iterable[str], runs: Mapping[str, Iterable[str]]) -> None:
        """Forget what a home has of parties that aren't there, and of runs that their parties don't name."""
        entry = self._entries[key]
        present, live = set(parties), {party: set(named) for party, named in runs.items()}
        self._parties |= present
        for party, run in sorted(entry.host.home.owners()):
            if party not in present:
                self.apply(key, Forget(party, at=time()))
            elif run and run not in live.get(party, {run}):
                self.apply(key, Forget(party, run, at=time()))
