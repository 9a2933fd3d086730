"""What the ledger of a chaos run takes for right."""

from __future__ import annotations

from concurrent.futures import CancelledError
from itertools import count
from typing import cast

import pytest
from distributed import KilledWorker
from distributed.scheduler import WorkerState

import skyward_dask as sky
from tests.chaos.actions import KINDS, Action
from tests.chaos.ledger import Damage, Ledger

_NUMBERS = count(1)
#: Of which worker, nobody asks.
_LOST = KilledWorker("quick", cast(WorkerState, None), 3)


def _action(name: str) -> Action:
    (kind,) = [kind for kind in KINDS if kind.name == name]
    return Action(next(_NUMBERS), kind, 0.0, 0.5)


def _complaints(name: str, outcome: object, damage: Damage | None = None, cancelled: bool = False) -> int:
    """How many there are after a task of that kind, with the process 7 killed."""
    ledger = Ledger()
    action = _action(name)
    ledger.enter(action).cancelled = cancelled
    ledger.notes.damage = damage or Damage()
    ledger.notes.killed.add(7)
    if isinstance(outcome, sky.SlotCrashed):
        outcome.key = action.key
    ledger.close(action.key, action.number if outcome == "its value" else outcome)
    return len(ledger.complaints)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("quick", 0),
        ("quick", KeyError()),
        ("quick", CancelledError()),
        ("quick", _LOST),
        ("quick", sky.SlotStartFailed("")),
        ("quick", sky.SlotCrashed("", 8, None, "SIGKILL")),
        ("quick", sky.SlotCrashed("", 7, None, "SIGSEGV")),
        ("late", -1),
        ("late", sky.TaskTimeout("late-0", 0.5, "")),
        ("exits", sky.SlotCrashed("", 8, 70)),
        ("again", sky.SlotCrashed("", 8, 73)),
    ],
)
def test_what_nothing_explains_is_a_complaint(name: str, outcome: object) -> None:
    """A wrong value, or an error for which nothing was done."""
    assert _complaints(name, outcome) == 1


@pytest.mark.parametrize(
    ("name", "outcome", "damage", "cancelled"),
    [
        ("quick", "its value", None, False),
        ("quick", sky.SlotCrashed("", 7, None, "SIGKILL"), None, False),
        ("quick", _LOST, Damage(workers=4), False),
        ("quick", sky.SlotStartFailed(""), Damage(templates=3), False),
        ("cancelled", CancelledError(), None, True),
        ("exits", sky.SlotCrashed("", 8, 71), None, False),
        ("again", sky.SlotCrashed("", 8, 73), Damage(children=1), False),
    ],
)
def test_what_was_done_explains_an_error(
    name: str, outcome: object, damage: Damage | None, cancelled: bool
) -> None:
    """Processes that were killed, a task that was cancelled, a function that fails."""
    assert _complaints(name, outcome, damage, cancelled) == 0


def test_one_death_is_charged_to_one_task() -> None:
    """A second that says that it died of the same kill is wrong."""
    ledger = Ledger()
    ledger.notes.killed.add(7)
    for action in (_action("quick"), _action("quick")):
        ledger.enter(action)
        ledger.close(action.key, sky.SlotCrashed(action.key, 7, None, "SIGKILL"))
    assert len(ledger.complaints) == 1


def test_a_second_outcome_is_a_complaint() -> None:
    """A task has exactly one."""
    ledger = Ledger()
    action = _action("quick")
    ledger.enter(action)
    ledger.close(action.key, action.number)
    ledger.close(action.key, action.number)
    assert len(ledger.complaints) == 1


def test_a_closed_entry_holds_no_future() -> None:
    """Or the scheduler would keep a task that was to be cancelled, and has failed before."""
    ledger = Ledger()
    entry = ledger.enter(_action("cancelled"))
    entry.future = object()
    ledger.close(entry.action.key, CancelledError())
    assert entry.future is None
