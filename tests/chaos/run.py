"""A run: rounds of chaos, each with a quiet end at which everything is counted."""

from __future__ import annotations

import queue
import random
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Future

from tests.chaos.actions import Action, Fate, actions
from tests.chaos.agenda import Agenda
from tests.chaos.autopsy import dump
from tests.chaos.farm import Farm
from tests.chaos.growth import growth
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.quiet import Sample, samples, wait_quiet
from tests.chaos.submitting import submit
from tests.chaos.vandal import Vandal

#: Tasks that are under way at once: three for each slot.
_OPEN = 12
#: Seconds after the last deed in which each task must have its outcome.
_DRAIN = 200.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is to be.

    Attributes
    ----------
    seconds : float
        Of chaos, quiet ends aside.
    a_round : float
        Seconds of one.
    """

    seconds: float
    seed: int
    nannies: bool
    a_round: float = 20.0


class Run:
    """One client, its tasks and who harms them; all in the caller's thread, but for the outcomes."""

    def __init__(self, settings: Settings, farm: Farm, client: Client) -> None:
        self._settings, self._farm, self._client = settings, farm, client
        self._stream: Iterator[Action] = actions(random.Random(settings.seed))
        self._agenda = Agenda()
        self._outcomes: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        self._collectors = ThreadPoolExecutor(_OPEN)
        self._active = False
        self.ledger = Ledger()
        chance = random.Random(settings.seed + 1)
        self.vandal = Vandal(chance, farm, client, self._agenda, self.ledger.notes)
        self.samples: list[list[Sample]] = []

    def rounds(self) -> Iterator[list[Sample]]:
        """Go through all rounds, until a complaint; yields what the workers hold at the end of each."""
        end = time.monotonic() + self._settings.seconds
        while time.monotonic() < end and not self.ledger.complaints:
            self._one_round(min(end, time.monotonic() + self._settings.a_round))
            self._grow_quiet()
            self.samples.append(samples(self._farm, self._client))
            yield self.samples[-1]

    def close(self) -> None:
        self._collectors.shutdown(wait=not self.ledger.open)

    def _one_round(self, end: float) -> None:
        self._active = True
        self.vandal.begin()
        self._submit_next()
        while time.monotonic() < end:
            self._turn()
        self._active = False
        self.vandal.relent()

    def _grow_quiet(self) -> None:
        deadline = time.monotonic() + _DRAIN
        while self.ledger.open and time.monotonic() < deadline:
            self._turn()
        faults = [f"{key}: no outcome" for key in self.ledger.open] or wait_quiet(self._farm, self._client)
        if faults:
            print(dump(self._farm, self._client, self.ledger), flush=True)
        self.ledger.complaints += faults

    def _turn(self) -> None:
        with suppress(queue.Empty):
            self.ledger.close(*self._outcomes.get(timeout=self._agenda.carry_out()))

    # --- tasks -----------------------------------------------------------------------------------

    def _submit_next(self) -> None:
        if not self._active:
            return
        action = next(self._stream)
        self._agenda.after(action.wait, self._submit_next)
        if len(self.ledger.open) < _OPEN:
            self._submit(action)

    def _submit(self, action: Action) -> None:
        entry = self.ledger.enter(action)
        entry.future = submit(self._client, action, self._farm.directory)
        match action.kind.fate:
            case Fate.DROPPED:
                # no callback: it would hold the future
                self._agenda.after(action.seconds, self._drop, entry)
                return
            case Fate.CANCELLED:
                self._agenda.after(action.seconds, self._cancel, entry)
        entry.future.add_done_callback(self._collect)

    def _drop(self, entry: Entry) -> None:
        entry.future = None
        self.ledger.drop(entry.action.key)

    def _cancel(self, entry: Entry) -> None:
        if entry.action.key in self.ledger.open:
            entry.cancelled = True
            entry.future.cancel()

    def _collect(self, future: Future[Any]) -> None:
        # in threads of its own: a value may have to come from a worker that is stopped
        self._collectors.submit(self._take, future)

    def _take(self, future: Future[Any]) -> None:
        try:
            outcome: object = future.result()
        except BaseException as error:
            error.add_note("".join(traceback.format_tb(error.__traceback__)))
            # with it, the frame would hold the future, and itself
            outcome = error.with_traceback(None)
        self._outcomes.put((str(future.key), outcome))


def run(settings: Settings, directory: Path) -> list[str]:
    """Have a whole run; returns the complaints, and prints what was done."""
    farm = Farm(directory, settings.nannies)
    try:
        client = farm.start()
        with client:
            complaints = _watched(Run(settings, farm, client))
    finally:
        left = farm.stop()
    complaints += left + [line for line in farm.logs() if "Exception in thread" in line]
    return complaints


def _watched(run: Run) -> list[str]:
    start = time.monotonic()
    for held in run.rounds():
        print(f"{time.monotonic() - start:5.0f} s, {run.ledger.closed} tasks, {run.ledger.notes.damage},")
        print(f"    {run.vandal.stops} stops, {held}", flush=True)
    run.close()
    for (kind, outcome), count in sorted(run.ledger.counts.items()):
        print(f"{kind:24} {outcome:20} {count:6}")
    return run.ledger.complaints + growth(run.samples)
