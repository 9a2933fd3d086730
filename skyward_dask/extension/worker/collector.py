"""Python's garbage collector takes less of the loop's time in a worker that is a node.

In a worker that runs small tasks, a tenth of the time goes to the collector: a full collection looks at some
hundred thousand objects of what the worker has imported, which live as long as it does.
"""

from __future__ import annotations

import gc

from distributed import Worker as DaskWorker

from skyward_dask.extension.patches import Patches

#: Objects made since the last collection from which there is another: as in Python 3.14, 700 before.
_YOUNG = 2000


def collect_less(worker: DaskWorker, patches: Patches) -> None:
    """Leave what is in the process now out of collections, and have fewer of them.

    A cycle that exists now isn't collected until this is undone. So this is for a process that belongs to the
    worker, which has a nanny then, and that has had no task yet: one that is released may have left a cycle.
    """
    if worker.nanny is None or worker.state.transition_counter:
        return
    gc.freeze()
    patches.callback(gc.unfreeze)
    young, *older = gc.get_threshold()
    patches.callback(gc.set_threshold, young, *older)
    gc.set_threshold(max(young, _YOUNG) if young else 0, *older)  # 0: somebody has switched it off
