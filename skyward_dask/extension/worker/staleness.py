"""Notices when children are out of date: something that tasks can see has changed in their worker.

A child has its worker's modules, ``sys.path``, environment, directory and configuration as they were when it
started. Only a few kinds of messages to the worker change these; if something has changed after one of
them, the children are replaced: idle ones at once, busy ones after their runs.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from distributed import Worker as DaskWorker

from skyward_dask.extension.patches import Patches
from skyward_dask.extension.private import module_plugins
from skyward_dask.extension.worker.configuration import pickled_configuration
from skyward_dask.slots.preparation import current_directory

#: Messages that run others' code in a worker, by Dask's names for their handlers.
_MESSAGES = ("plugin-add", "plugin-remove", "run", "run_coroutine", "upload_file")


def snapshot() -> tuple[object, ...]:
    """What children inherit, except the contents of modules."""
    return dict(os.environ), list(sys.path), current_directory(), pickled_configuration()


class Watch:
    """Watches one worker's messages.

    Parameters
    ----------
    worker : distributed.Worker
    renew : callable
        Called on the loop when children have become stale.
    """

    def __init__(self, worker: DaskWorker, renew: Callable[[], None]) -> None:
        self._worker = worker
        self._renew = renew
        self._seen = snapshot()

    def begin(self, patches: Patches) -> None:
        """Wrap the handlers of these messages."""
        handlers = self._worker.handlers
        for name in _MESSAGES:
            patches.entry(handlers, name, self._watched(name, handlers[name]))

    def _watched(self, name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        # Dask looks at a handler's signature to see whether it wants the connection: wraps keeps it
        @functools.wraps(handler)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            plugins = dict(self._worker.plugins)
            try:
                answer = handler(*args, **kwargs)
                return await answer if isawaitable(answer) else answer
            finally:
                self._look(name == "upload_file" or self._has_installer_beside(plugins))

        return watched

    def _has_installer_beside(self, before: dict[str, Any]) -> bool:
        added = (p for name, p in self._worker.plugins.items() if before.get(name) is not p)
        return any(isinstance(plugin, module_plugins) for plugin in added)

    def _look(self, modules_have_changed: bool) -> None:
        now = snapshot()
        if modules_have_changed or now != self._seen:
            self._seen = now
            self._renew()
