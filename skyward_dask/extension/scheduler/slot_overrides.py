"""Slot counts set by `resize`, which override the installed plugin's.

The scheduler keeps them by worker name: when a nanny restarts a worker, the name stays, the address doesn't.
A later `install` or `uninstall`, however it is done, makes them void.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed import Scheduler
from distributed.scheduler import WorkerState


class SlotOverrides:
    """Slot counts by worker.

    Parameters
    ----------
    name : str
        The plugin's name in ``scheduler.worker_plugins``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._under: bytes | None = None
        self._everywhere: int | None = None
        self._by_name: dict[Any, int] = {}

    def slots_of(self, scheduler: Scheduler, name: Any) -> int | None:
        """The number of slots for the worker of that name; None if its plugin's number applies."""
        if scheduler.worker_plugins.get(self._name) != self._under:
            return None
        return self._by_name.get(name, self._everywhere)

    def remember(self, scheduler: Scheduler, slots: int, workers: Mapping[str, WorkerState] | None) -> None:
        """Note a resize of some workers or, if None, of all, including those that join later."""
        plugin = scheduler.worker_plugins.get(self._name)
        if plugin != self._under or workers is None:
            self._under, self._everywhere, self._by_name = plugin, None, {}
        if workers is None:
            self._everywhere = slots
        else:
            self._by_name.update({ws.name: slots for ws in workers.values()})
