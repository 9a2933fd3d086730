"""`stack`: where a running task is, from what faulthandler writes in its process."""

from __future__ import annotations

import linecache
import re
from typing import Any

from distributed import Future

from skyward_dask.errors import ConfigurationError
from skyward_dask.extension.child import run_task

#: The last of Dask's own frames above a task's function.
_TASK_SPEC = "_task_spec.py"


#: A frame as faulthandler writes it.
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')


def frames(text: str) -> list[str]:
    """The frames below `run_task` in what faulthandler wrote of a child, outermost first."""
    found = [_FRAME.fullmatch(line) for line in text.splitlines()]
    inner: list[str] = []
    for match in found:
        if match is None:  # the headline of a thread
            inner = []
        elif match["file"] == run_task.__code__.co_filename and match["name"] == run_task.__name__:
            return inner[::-1]
        else:
            source = linecache.getline(match["file"], int(match["line"])).strip()
            inner.append(f'  File "{match["file"]}", line {match["line"]}, in {match["name"]}\n\t{source}')
    return []


def stack(future: Future[Any]) -> str:
    """Where a running task is: the frames of its function and of what that has called, outermost first.

    Parameters
    ----------
    future : distributed.Future

    Returns
    -------
    str
        As in a traceback; empty if the task isn't running. With an asynchronous client, an awaitable of it.

    Examples
    --------
    >>> print(stack(client.submit(slow)))  # doctest: +SKIP
      File "slow.py", line 3, in slow
        time.sleep(100)

    Notes
    -----
    It works for a process slot even while native code holds the GIL.
    """
    if not isinstance(future, Future):
        raise ConfigurationError(f"future must be a dask.distributed.Future, not {future!r}.")
    return future.client.sync(_stack, future)  # type: ignore[no-any-return]


async def _stack(future: Future[Any]) -> str:
    try:
        found = await future.client.scheduler.call_stack(keys=[future.key])
    except KeyError:  # the scheduler doesn't know the task any more
        return ""
    frames = [frame for stacks in found.values() for frame in stacks.get(future.key, ())]
    inner = max((n for n, frame in enumerate(frames) if _TASK_SPEC in frame), default=-1)
    return "\n".join(frames[inner + 1 :])
