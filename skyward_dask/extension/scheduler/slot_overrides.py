"""What `resize` has told the cluster: slot counts that stand above those of the installed plugin.

Kept on the scheduler's side, by worker name, which a nanny keeps over restarts as it doesn't keep an address.
A later `install` or `uninstall`, by whatever door, makes it void.
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
        The plugin's in ``scheduler.worker_plugins``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._under: bytes | None = None
        self._everywhere: int | None = None
        self._by_name: dict[Any, int] = {}

    def slots_of(self, scheduler: Scheduler, name: Any) -> int | None:
        """What the worker of that name is to have; None: what its plugin says."""
        if scheduler.worker_plugins.get(self._name) != self._under:
            return None
        return self._by_name.get(name, self._everywhere)

    def remember(self, scheduler: Scheduler, slots: int, workers: Mapping[str, WorkerState] | None) -> None:
        """Take note of a resize, of some workers or (None) of all, those that join later too."""
        plugin = scheduler.worker_plugins.get(self._name)
        if plugin != self._under or workers is None:
            self._under, self._everywhere, self._by_name = plugin, None, {}
        if workers is None:
            self._everywhere = slots
        else:
            self._by_name.update({ws.name: slots for ws in workers.values()})
