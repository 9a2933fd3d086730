"""A message that has a worker take part in collections; its sender needn't import what it runs there."""

from __future__ import annotations

from importlib import import_module

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin


class Invitation(WorkerPlugin):
    """Has a worker take part in collections, if it doesn't already."""

    name = "skyward-invitation"

    def setup(self, worker: Worker) -> None:
        import_module("skyward_dask.extension.collections.worker_collections").WorkerCollections.of(worker)
        # nothing is left to tear down
        worker.loop.add_callback(worker.plugins.pop, self.name, None)
