"""Tasks for one node alone: they fail when it has left, instead of waiting for its return for ever."""

from __future__ import annotations

from distributed import Scheduler
from distributed.metrics import time
from distributed.protocol.pickle import dumps

from skyward_dask.errors import NodeLeft
from skyward_dask.extension.registration import ON_NODE


def fail_orphans(scheduler: Scheduler) -> None:
    """Fail the tasks that only a worker which isn't there could run."""
    stimulus = f"skyward-node-left-{time()}"
    for task in list(scheduler.unrunnable):
        node = (task.annotations or {}).get(ON_NODE)
        if node is not None and node not in scheduler.workers:
            error = dumps(NodeLeft(node))
            further = scheduler.transition(
                task.key, "erred", stimulus_id=stimulus, exception=error, cause=task.key
            )
            scheduler.transitions(further, stimulus_id=stimulus)
