"""`stack`: where a running task is, from what faulthandler writes in its process."""

from __future__ import annotations

from typing import Any

from distributed import Future

from skyward_dask.errors import ConfigurationError
from skyward_dask.extension.streams.stream import Stream

#: The file of Dask's last frame before a task's function.
_TASK_SPEC = "_task_spec.py"


def stack(future: Future[Any]) -> str:
    """Where a running task is: the frames of its function and of what this has called, outermost first.

    Parameters
    ----------
    future : distributed.Future

    Returns
    -------
    str
        As in a traceback; empty if the task isn't running, or waits for the reader of its stream. With an
        asynchronous client, an awaitable of it.

    Examples
    --------
    >>> print(stack(client.submit(slow)))  # doctest: +SKIP
      File "slow.py", line 3, in slow
        time.sleep(100)

    Notes
    -----
    It works for a process slot even while native code holds the GIL. A function in C, such as `time.sleep`,
    has no frame: the one that calls it stands for it.
    """
    if not isinstance(future, Future):
        raise ConfigurationError(f"future must be a dask.distributed.Future, not {future!r}.")
    return future.client.sync(_stack, future)  # type: ignore[no-any-return]


async def _stack(future: Future[Any]) -> str:
    if future.cancelled():  # Dask's scheduler would log an error about a task that it has forgotten
        return ""
    scheduler: Any = future.client.scheduler
    try:
        found = await scheduler.call_stack(keys=[future.key])
    except KeyError:  # the scheduler doesn't know the task yet, or any more
        return ""
    if not found and future.type is Stream:  # to Dask, its task is finished
        workers = (await scheduler.who_has(keys=[future.key])).get(future.key)
        message = {"op": "call_stack", "keys": [future.key]}
        found = await scheduler.broadcast(msg=message, workers=list(workers)) if workers else {}
    frames = [frame for stacks in found.values() for frame in stacks.get(future.key, ())]
    inner = max((n for n, frame in enumerate(frames) if _TASK_SPEC in frame), default=-1)
    return "\n".join(frames[inner + 1 :] or frames[inner:])
