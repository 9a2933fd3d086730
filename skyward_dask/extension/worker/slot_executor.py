"""What `Worker.execute` hands a task to: an executor whose `submit` decides where the task runs.

```
 Worker.execute ─▶ SlotExecutor.submit ─ route ─┬─ child ──▶ ChildRun ─▶ Pool        all on the worker's loop
                                                └─ thread ─▶ Dask's own threads, by `_run_task`
```
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from skyward_dask.extension.private import run_task_simple


class SlotExecutor(Executor):
    """The executor of a node's tasks.

    `Worker.execute` calls ``submit(_run_task_simple, spec, data, scheduler_delay)`` on its loop, in the
    task's own context, for any executor whose class isn't named like a thread pool; and waits for what it
    returns, a future of either kind. Other callers (benchmarks of disk and memory) submit plain calls.

    Parameters
    ----------
    run : callable
        Takes spec, data and delay, and returns a future of the dict that `_run_task_simple` makes.
    threads : concurrent.futures.Executor
        Where plain calls run.
    """

    def __init__(self, run: Callable[..., Any], threads: Executor) -> None:
        self._run, self._threads = run, threads

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Have a task run where it belongs, or a plain call in a thread."""
        if fn is run_task_simple:
            return self._run(*args)
        return self._threads.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: the node ends its slots itself, and `Worker.close` calls this once for each name."""
