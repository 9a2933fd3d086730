"""What was asked, what came of it, and whether that is right for what was done to the cluster. Pure."""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

from distributed import KilledWorker

import skyward_dask as sky
from tests.chaos import work
from tests.chaos.actions import Action, Fate

#: Lost workers that the scheduler forgives a task: its setting `allowed-failures`.
_ALLOWED_FAILURES = 3
#: Times that a run is given to another child because its template has ended.
_REPEATS = 5
#: Templates that have to go for a start to fail.
_LOST_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Damage:
    """What has been killed so far, by number."""

    children: int = 0
    templates: int = 0
    workers: int = 0

    def since(self, then: Damage) -> Damage:
        return Damage(
            self.children - then.children, self.templates - then.templates, self.workers - then.workers
        )


@dataclass(slots=True)
class Notes:
    """What was killed: the process ids of children, and the damage as a whole."""

    killed: set[int] = field(default_factory=set)
    damage: Damage = field(default_factory=Damage)


@dataclass(slots=True)
class Entry:
    """A task that was submitted, and the damage that had been done before."""

    action: Action
    before: Damage
    future: Any = None
    cancelled: bool = False


@dataclass(slots=True)
class Ledger:
    """Entries that are open; complaints about those that are closed.

    Attributes
    ----------
    counts : dict
        How often each outcome came, by the kind of the task.
    """

    notes: Notes = field(default_factory=Notes)
    open: dict[str, Entry] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    charged: dict[int, str] = field(default_factory=dict)
    closed: int = 0

    def enter(self, action: Action) -> Entry:
        entry = self.open[action.key] = Entry(action, self.notes.damage)
        return entry

    def drop(self, key: str) -> None:
        """Nobody waits for the outcome any more."""
        del self.open[key]
        self.closed += 1

    def close(self, key: str, outcome: object) -> None:
        """Take the one outcome of a task: what it returned, or the exception itself."""
        entry = self.open.pop(key, None)
        if entry is None:
            self.complaints.append(f"{key}: a second outcome, {outcome!r}")
            return
        entry.future = None  # who is still to cancel it holds the entry
        self.closed += 1
        name = type(outcome).__name__ if isinstance(outcome, BaseException) else "value"
        count = (entry.action.kind.name, name)
        self.counts[count] = self.counts.get(count, 0) + 1
        if not (is_due(entry.action, outcome) or self._is_excused(entry, outcome)):
            where = "\n".join(getattr(outcome, "__notes__", ()))
            damage = self.notes.damage.since(entry.before)
            self.complaints.append(f"{key}: {outcome!r} after {damage}\n{where}".strip())

    def _is_excused(self, entry: Entry, outcome: object) -> bool:
        """Whether what was done to the cluster, or to the task, explains it."""
        damage = self.notes.damage.since(entry.before)
        match outcome:
            case CancelledError():
                return entry.cancelled
            case KilledWorker():
                return damage.workers > _ALLOWED_FAILURES
            case sky.SlotStartFailed():
                # templates in a row, or the children of both slots
                return damage.templates >= _LOST_IN_A_ROW or damage.children > 1
            case sky.SlotOutOfMemory():
                return False
            case sky.SlotCrashed():
                return self._is_charged_rightly(entry, outcome, damage)
        return False

    def _is_charged_rightly(self, entry: Entry, crash: sky.SlotCrashed, damage: Damage) -> bool:
        kind = entry.action.kind
        if kind.retries and crash.exitcode == kind.exitcode:
            return damage.children > 0  # which took the retry
        if crash.signal is None and crash.exitcode is None:  # nobody saw it
            return damage.templates > _REPEATS or (damage.templates > 0 and crash.pid in self.notes.killed)
        if crash.signal != "SIGKILL" or crash.pid not in self.notes.killed:
            return False
        # the inputs' error is the task's too
        return bool(kind.inputs) or self.charged.setdefault(crash.pid, crash.key) == crash.key


def is_due(action: Action, outcome: object) -> bool:
    """Whether it is what the task gets when it is left alone."""
    kind, key = action.kind, action.key
    match kind.fate, outcome:
        case Fate.VALUE, int():
            return outcome == action.number
        case Fate.REFUSAL, work.Refusal():
            return outcome.number == action.number and isinstance(outcome.__cause__, Exception)
        case Fate.EXIT, sky.SlotCrashed(exitcode=code):
            return outcome.key == key and code == kind.exitcode
        case Fate.SEGFAULT, sky.SlotCrashed(signal=name):
            return outcome.key == key and name == "SIGSEGV"
        case Fate.TIMEOUT, sky.TaskTimeout():
            return outcome.key == key and outcome.seconds == action.seconds
        case Fate.OUT_OF_MEMORY, sky.SlotOutOfMemory():
            return outcome.key == key and outcome.limit == work.HOG_LIMIT < outcome.peak
    return False
