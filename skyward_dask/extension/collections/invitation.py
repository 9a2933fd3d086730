"""A message that has a worker take part in collections; its sender imports nothing of what it does there."""

from __future__ import annotations

from importlib import import_module

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin


class Invitation(WorkerPlugin):
    """A message that makes a worker's attendant, if it has none."""

    name = "skyward-invitation"

    def setup(self, worker: Worker) -> None:
        import_module("skyward_dask.extension.collections.host").Attendant.of(worker)
        # nothing is left to be torn down
        worker.loop.add_callback(worker.plugins.pop, self.name, None)
