"""`options`: where the tasks that are submitted in a block run, and their limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from dask.base import annotate

from skyward_dask.arguments import takes_only
from skyward_dask.config import parse_memory_limit, parse_timeout
from skyward_dask.errors import ConfigurationError
from skyward_dask.extension.client.limits_support import require_slots

_EXECUTORS = ("thread", "process")


@takes_only("Dask's own annotations, such as retries or priority, are set by dask.annotate.")
@contextmanager
def options(
    *,
    executor: Literal["thread", "process"] | None = None,
    timeout: float | str | None = None,
    memory_limit: int | str | None = None,
) -> Iterator[None]:
    """Choose the kind of slot and the limits of the tasks submitted in a block.

    For what isn't given, the node's `Worker` applies.

    Parameters
    ----------
    executor : str, optional
        ``"thread"`` or ``"process"``: the kind of slot they run in, whatever the node's slots are.
    timeout : float or str, optional
        Seconds, or text such as ``"30s"``, for each of them.
    memory_limit : int or str, optional
        Bytes, or text such as ``"2GiB"``, for the slot of each of them.

    Raises
    ------
    ConfigurationError
        A value is invalid, none is given, a limit is given for threads, or no worker of the current client's
        cluster has slots that could keep a limit (an asynchronous client gets a warning, once).

    Examples
    --------
    >>> with options(executor="process", timeout="30s"):
    ...     future = client.submit(may_hang)  # doctest: +SKIP

    Notes
    -----
    This is ``dask.annotate`` with checked values, for the keys ``executor``, ``skyward_timeout`` and
    ``skyward_memory_limit``. With Dask's arrays and dataframes, graph optimisation may drop annotations;
    ``dask.config.set({"optimization.fuse.active": False})`` keeps them.
    """
    if executor not in (None, *_EXECUTORS):
        raise ConfigurationError(
            f"executor must be 'thread' or 'process', not {executor!r}. For executors of your own, use "
            "dask.annotate(executor=...)."
        )
    given = {
        "executor": executor,
        "skyward_timeout": parse_timeout(timeout),
        "skyward_memory_limit": parse_memory_limit(memory_limit),
    }
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        raise ConfigurationError(
            "options() without a value does nothing: give executor, timeout or memory_limit."
        )
    if executor == "thread" and len(given) > 1:
        raise ConfigurationError(
            "timeout and memory_limit need a process slot, and executor='thread' asks for a thread, which "
            "can't be stopped."
        )
    if len(given) > (executor is not None):
        require_slots()
    with annotate(**given):
        yield
