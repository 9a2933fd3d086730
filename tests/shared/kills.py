"""Hosts and standbys killed one after the other, while callers count: ``python -m tests.shared.kills``.

Each is killed when both copies are whole. Every number must be told once, and none may be missing.
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

from distributed import Client, LocalCluster

import skyward_dask as sky

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
        while (found := sky.collections(self._client)[self._name]).in_step is False:
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


def main() -> int:
    """Kill so many, or for so long, and say what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.shared.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    deadline = time.monotonic() + 60 * options.minutes
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(_CALLERS) as threads,
    ):
        counter, over = sky.counter("kills"), threading.Event()
        counter.reset()
        calling = [threads.submit(counted, counter, over) for _ in range(_CALLERS)]
        kills = Kills(client, "kills", options.seed)
        while kills.count < options.kills and time.monotonic() < deadline and not over.is_set():
            kills.kill()
        over.set()
        numbers = sorted(number for each in calling for number in each.result())
    is_right = numbers == list(range(1, len(numbers) + 1))
    print(f"{kills.count} kills, {len(numbers)} increments: {'each once' if is_right else 'WRONG'}")
    return int(not is_right)


if __name__ == "__main__":
    sys.exit(main())
