"""A message that has a worker take part in collections; its sender imports nothing of what it does there."""

from __future__ import annotations

from importlib import import_module

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin


class Invitation(WorkerPlugin):
    """A message that has a worker begin to, if it hasn't."""

    name = "skyward-invitation"

    def setup(self, worker: Worker) -> None:
        import_module("skyward_dask.extension.collections.worker_collections").WorkerCollections.of(worker)
        # nothing is left to be torn down
        worker.loop.add_callback(worker.plugins.pop, self.name, None)
