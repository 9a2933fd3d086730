"""Hosts and standbys killed one after the other, while callers count: ``python -m tests.shared.kills``.

Each is killed when both copies are whole. Every number must be told once, and none may be missing. If workers
don't come back, because a nanny has given up, it goes on with another cluster.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from distributed import Client

import skyward_dask as sky
from tests.linearizability.losses import all_are_back, cluster

_CALLERS = 4
#: Seconds for which a worker that has come is let alone: a nanny gives up on one that is killed as it starts.
_GRACE = 1.0


class Kills:
    """Kills hosts and standbys of one collection.

    Attributes
    ----------
    count : int
        How many workers were killed.
    """

    def __init__(self, client: Client, name: str, seed: int) -> None:
        self.count = 0
        self._client, self._name, self._random = client, name, random.Random(seed)
        self._came: dict[str, float] = {}

    def kill(self) -> None:
        """Kill one of the two, as soon as the other is whole."""
        while not (found := sky.collections(self._client)[self._name]).in_step:
            if found.lost:
                raise AssertionError(f"after {self.count} kills: {found}")
            time.sleep(0.01)
        worker = self._random.choice((*found.hosts, *found.standby))
        self._let_it_come(worker)
        with suppress(KeyError, ProcessLookupError):  # it has just left
            os.kill(self._client.run(os.getpid, workers=[worker], on_error="ignore")[worker], signal.SIGKILL)
            self.count += 1
        while worker in self._client.nthreads():
            time.sleep(0.01)

    def _let_it_come(self, worker: str) -> None:
        for each in self._client.nthreads():
            self._came.setdefault(each, time.monotonic())
        time.sleep(max(0.0, self._came.get(worker, 0.0) + _GRACE - time.monotonic()))


def counted(counter: Any, over: threading.Event) -> list[int]:
    """Count until it is over; returns what was told."""
    told = []
    while not over.is_set():
        told.append(counter.increment())
    return told


def lose(kills: int, deadline: float, seed: int) -> tuple[int, list[int]]:
    """How many were killed, at most, of a cluster of their own; and what the callers were told, in order."""
    with cluster() as client, ThreadPoolExecutor(_CALLERS) as threads:
        counter, over = sky.counter("kills"), threading.Event()
        counter.reset()
        calling = [threads.submit(counted, counter, over) for _ in range(_CALLERS)]
        killing = Kills(client, "kills", seed)
        try:
            while killing.count < kills and time.monotonic() < deadline and all_are_back(client):
                killing.kill()
        finally:
            over.set()
        return killing.count, sorted(number for each in calling for number in each.result())


def main() -> int:
    """Kill so many, or for so long, and say what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.shared.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    deadline, count, told, wrong = time.monotonic() + 60 * options.minutes, 0, 0, 0
    while count < options.kills and time.monotonic() < deadline:
        killed, numbers = lose(options.kills - count, deadline, options.seed + count)
        count, told = count + killed, told + len(numbers)
        wrong += numbers != list(range(1, len(numbers) + 1))
    print(f"{count} kills, {told} increments: {wrong} clusters in which not each was told once")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
