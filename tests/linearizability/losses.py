"""Rounds in which workers that have the collections are killed and stopped, while callers go on."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from distributed import Client, LocalCluster

import skyward_dask as sky
from tests.linearizability.checker import complaint
from tests.linearizability.journal import histories
from tests.linearizability.models import MODELS
from tests.linearizability.playing import Caller
from tests.shared.test_replay import plain

#: Workers: with two copies of each collection there is always one that has neither.
_WORKERS = 3
#: Callers, each a client of its own, and the operations of each.
_CALLERS, _OPERATIONS = 5, 60
#: Seconds for which a worker is stopped at most: as long as others hold the interpreter, as a rule.
_STOP = 1.5
#: Seconds for which a worker that has come is let alone: a nanny gives up on one that is killed as it starts.
_GRACE = 1.0
#: Seconds for two copies to be equal, when nobody calls any more.
_SETTLE = 30.0


@contextmanager
def cluster() -> Iterator[Client]:
    """Workers that come back when they are killed, and a client."""
    local = LocalCluster(
        n_workers=_WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    )
    try:
        with Client(local) as client:
            yield client
    finally:
        with suppress(KeyError):  # it can't close if a worker was killed before it had been told of it
            local.close()


@dataclass
class Round:
    """One round on collections of its own.

    Attributes
    ----------
    client : distributed.Client
    folder : Path
        Empty; for the journals.
    seed : int
    came : dict
        When each worker was first seen, in all rounds.
    kills, stops : int
        What was done to workers that had a copy.
    """

    client: Client
    folder: Path
    seed: int
    came: dict[str, float]
    kills: int = 0
    stops: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._collections = uuid4().hex
        self._names = [f"{self._collections}-{kind}" for kind in ("dict", "counter", "queue", "lock")]

    def run(self) -> list[str]:
        """What nothing can explain, in words."""
        address = self.client.scheduler.address  # type: ignore[union-attr]
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(address, set_as_default=False)) for _ in range(_CALLERS)]
            callers = [
                Caller(f"client-{number}", self._collections, self.folder, client)
                for number, client in enumerate(clients)
            ]
            threads = [threading.Thread(target=each.play, args=(_OPERATIONS,)) for each in callers]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                self._harm()
            for thread in threads:
                thread.join()
        Caller("judge", self._collections, self.folder, self.client).judge()
        found = self._differences() + self._complaints()
        for kind in (sky.dict, sky.counter, sky.queue, sky.lock):
            kind(f"{self._collections}-{kind.__name__}", client=self.client).destroy()
        return found

    def _complaints(self) -> list[str]:
        recorded = histories(self.folder, {})
        found = {kind: complaint(MODELS[kind], history) for kind, history in recorded.items()}
        return [f"{kind}: {why}" for kind, why in found.items() if why]

    def _harm(self) -> None:
        """Kill or stop a host or a standby; not before another copy is whole."""
        time.sleep(self._random.random() / 5)
        for each in self.client.nthreads():
            self.came.setdefault(each, time.monotonic())
        found = [each for name, each in sky.collections(self.client).items() if name in self._names]
        if len(found) < len(self._names) or not all(each.in_step for each in found):
            return
        victim = self._random.choice(found)
        worker = self._random.choice((*victim.hosts, *victim.standby))
        if time.monotonic() < self.came[worker] + _GRACE:
            return
        pids = self.client.run(os.getpid, workers=[worker], on_error="ignore")
        with suppress(ProcessLookupError, KeyError):
            if self._random.random() < 0.3:
                os.kill(pids[worker], signal.SIGSTOP)
                time.sleep(self._random.random() * _STOP)
                os.kill(pids[worker], signal.SIGCONT)
                self.stops += 1
            else:
                os.kill(pids[worker], signal.SIGKILL)
                self.kills += 1
                while worker in self.client.nthreads():  # the next to be killed may have the other copy
                    time.sleep(0.01)

    def _differences(self) -> list[str]:
        """Copies that aren't equal though nobody calls."""
        if not all_are_back(self.client, 2):
            return []  # nannies have given up: there is one copy
        deadline, wrong = time.monotonic() + _SETTLE, {"?": {"": ""}}
        while wrong and time.monotonic() < deadline:
            copies: dict[str, dict[str, str]] = {}
            for worker, told in self.client.run(digests, on_error="ignore").items():
                for key, digest in told.items():
                    copies.setdefault(key, {})[worker] = digest
            wrong = {
                key: found
                for key, found in copies.items()
                if len(found) != 2 or len(set(found.values())) != 1
            }
        complaints = [f"{key} has other copies than two equal ones: {found}" for key, found in wrong.items()]
        return complaints and [
            *complaints,
            f"workers {[*self.client.nthreads()]}, {sky.collections(self.client)}",
        ]


def digests(dask_worker: Any) -> dict[str, str]:
    """A digest of each home and of each standby in this worker."""
    collections = dask_worker.plugins.get("skyward-collections")
    if collections is None:
        return {}
    copies = {key: entry.host.home for key, entry in collections._homes._entries.items()}
    copies |= {key: standby._home for key, standby in collections._standbys._standbys.items()}
    return {key: digest(home) for key, home in copies.items()}


def digest(home: Any) -> str:
    """Of all that a home has, except for what was made of its entries to read them in pages."""
    for name in ("_values", "_members"):
        if hasattr(home._state, name):
            getattr(home._state, name)._listed = None
    return hashlib.blake2b(repr(plain(home)).encode(), digest_size=16).hexdigest()


def rounds(folder: Path, seed: int, seconds: float) -> Iterator[tuple[Round, list[str]]]:
    """Rounds for so long, each with what it complains of; the folder of one that complains stays."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with cluster() as client:
            came: dict[str, float] = {}
            while time.monotonic() < deadline:
                place = folder / f"round-{seed}"
                place.mkdir()
                this = Round(client, place, seed, came)
                yield this, this.run()
                seed += 1
                if not all_are_back(client):
                    break


def all_are_back(client: Client, count: int = _WORKERS) -> bool:
    """Whether so many workers have come back."""
    try:
        client.wait_for_workers(count, timeout=_SETTLE)
    except TimeoutError:
        return False
    return True
