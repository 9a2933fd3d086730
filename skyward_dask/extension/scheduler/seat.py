"""A seat: which worker is the host of a home, and which one its standby."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import time
from typing import Any

from skyward_dask.extension.collections.directory_messages import standby_actor


@dataclass(slots=True, eq=False)
class Seat:
    """A home: who is its host and its standby, in which epoch.

    Attributes
    ----------
    name : str
        What it is called in messages for people.
    key, actor : str
        Of the home; and of the actor that it is to Dask.
    host, standby, successor : str
        Addresses of workers; empty if there is none. The successor replaces the standby when it is in step.
    replicas : int
    epoch, chosen : int
        Of the last decision, and of the one in which the standby was chosen.
    is_in_step : bool
        Whether the standby has all that anybody was told.
    since : float
        When that became so, or ended, in seconds since the epoch.
    moves, took : int, float
        How often another worker became the host, and how many seconds that took the last time.
    """

    name: str
    key: str
    actor: str
    host: str
    replicas: int
    epoch: int = 1
    standby: str = ""
    chosen: int = 0
    successor: str = ""
    is_in_step: bool = False
    since: float = field(default_factory=time)
    moves: int = 0
    took: float = 0.0
    is_moving: bool = False
    lost: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def followers(self) -> list[str]:
        """The actors that the standby and its successor are to Dask."""
        found = [standby_actor(self.key, self.chosen)] if self.standby else []
        return [*found, standby_actor(self.key, self.epoch)] if self.successor else found

    def change(self, **values: Any) -> None:
        """Decide something."""
        if values.get("is_in_step", self.is_in_step) != self.is_in_step:
            self.since = time()
        for name, value in values.items():
            setattr(self, name, value)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
