"""Waiting for what a pool, or somebody else's call, is about to do."""

from __future__ import annotations

import os
import time
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
