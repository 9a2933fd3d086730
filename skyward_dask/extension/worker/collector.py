"""What a worker has imported lives as long as the worker: Python's collector need not look at it again."""

from __future__ import annotations

import gc

from distributed import Worker as DaskWorker

from skyward_dask.extension.patches import Patches


def spare_imports(worker: DaskWorker, patches: Patches) -> None:
    """Leave out what is in the process now from garbage collections, until that is undone.

    A full collection looks at some hundred thousand objects of Dask's modules, on the loop: it takes a
    twentieth of the time of a worker that runs small tasks. A cycle that exists now isn't collected any more.
    So this is for a process that belongs to the worker, which has a nanny then, and that has had no task yet.
    """
    if worker.nanny is not None and not worker.state.tasks:
        gc.freeze()
        patches.callback(gc.unfreeze)
