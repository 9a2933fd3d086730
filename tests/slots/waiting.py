"""Waiting for what a pool, or somebody else's call, is about to do.

Calls wait here, as the children that import this module have little else to import.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import cast

from skyward_dask.slots.executor import SlotPool


def children(pool: SlotPool) -> set[int]:
    """The pids of its children, once they are there."""
    while None in (found := {slot.pid for slot in pool.snapshots()}):
        time.sleep(0.001)
    return cast(set[int], found)


def until_there(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.001)


def meet(directory: str, count: int) -> int:
    """Wait until so many calls are here."""
    Path(directory, str(os.getpid())).touch()
    while len(os.listdir(directory)) < count:
        time.sleep(0.001)
    return os.getpid()
