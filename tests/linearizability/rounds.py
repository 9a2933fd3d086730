"""Rounds: callers in process slots, threads and a client, some killed or cancelled; then the check."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from distributed import Client, Future, LocalCluster, as_completed

import skyward_dask as sky
from tests.linearizability.checker import complaint
from tests.linearizability.journal import histories, pid
from tests.linearizability.models import MODELS
from tests.linearizability.playing import Caller, play

WORKERS, SLOTS = 2, 3
#: Tasks of a round, and operations of each: a history of some hundred operations is checked in no time.
_TASKS, _OPERATIONS = 24, 25


@contextmanager
def cluster() -> Iterator[Client]:
    """Two workers with process slots, and a client."""
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as local,
        Client(local) as client,
    ):
        sky.install(client, sky.Worker(concurrency=SLOTS, executor="process"))
        yield client


@dataclass
class Round:
    """One round on collections of its own.

    Attributes
    ----------
    client : distributed.Client
    folder : Path
        Empty; for the journals.
    seed : int
    """

    client: Client
    folder: Path
    seed: int
    kills: int = 0
    cancels: int = 0
    _names: dict[str, str] = field(default_factory=dict)
    _harms: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._collections = uuid4().hex

    def run(self) -> list[str]:
        """What nothing can explain, in words."""
        harmless = threading.Thread(target=self._play_here, name="caller")
        harmless.start()
        self._play_there()
        harmless.join()
        is_free = Caller("judge", self._collections, self.folder, self.client).judge()
        self._destroy()
        return self._complaints() + ([] if is_free else ["lock: somebody has it who is gone"])

    def _complaints(self) -> list[str]:
        recorded = histories(self.folder, self._harms)
        found = {kind: complaint(MODELS[kind], history) for kind, history in recorded.items()}
        return [f"{kind}: {why}" for kind, why in found.items() if why]

    def _play_here(self) -> None:
        Caller("client", self._collections, self.folder, self.client).play(2 * _OPERATIONS)

    def _play_there(self) -> None:
        """Keep all slots busy; whenever a task ends, harm another that runs."""
        waiting = [f"task-{number}" for number in range(_TASKS)]
        flow = as_completed([self._submit(waiting.pop()) for _ in range(WORKERS * SLOTS)])
        for done in flow:
            del self._names[done.key]
            if waiting:
                flow.add(self._submit(waiting.pop()))
            if self._random.random() < 0.7:
                self._harm()

    def _submit(self, name: str) -> Future:
        executor = self._random.choice(("process", "process", "thread"))
        with sky.options(executor=executor):
            future = self.client.submit(
                play, name, self._collections, self.folder, _OPERATIONS, pure=False, retries=0
            )
        self._names[future.key] = name
        return future

    def _harm(self) -> None:
        """Kill a slot's process in the middle of a task, or cancel a task."""
        key = self._random.choice(sorted(self._names) or [""])
        victim = pid(self.folder, self._names[key]) if key else None
        if victim is None:
            return
        self._harms[self._names[key]] = time.monotonic_ns()
        if victim in self._workers() or self._random.random() < 0.4:
            self.cancels += 1
            Future(key, self.client).cancel()
            return
        self.kills += 1
        with suppress(ProcessLookupError):  # it has just been replaced
            os.kill(victim, signal.SIGKILL)

    def _workers(self) -> set[int]:
        """Processes that are no slots."""
        return {os.getpid(), *self.client.run(os.getpid).values()}

    def _destroy(self) -> None:
        for kind in (sky.dict, sky.counter, sky.queue, sky.lock):
            kind(f"{self._collections}-{kind.__name__}", client=self.client).destroy()


def rounds(client: Client, folder: Path, seed: int, seconds: float) -> Iterator[tuple[Round, list[str]]]:
    """Rounds for so long, each with what it complains of; the folder of one that complains stays."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        place = folder / f"round-{seed}"
        place.mkdir()
        this = Round(client, place, seed)
        yield this, this.run()
        seed += 1
