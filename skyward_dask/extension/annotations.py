"""`options`: where the tasks that are submitted in a block run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dask.base import annotate

from skyward_dask.errors import ConfigurationError

_EXECUTORS = ("thread", "process")


@contextmanager
def options(*, executor: str) -> Iterator[None]:
    """Annotate the tasks that are submitted in the block.

    Parameters
    ----------
    executor : str
        ``"thread"`` or ``"process"``: the kind of slot that they run in, whatever their node's is.

    Raises
    ------
    ConfigurationError
        There is no such executor.

    Examples
    --------
    >>> with options(executor="thread"):
    ...     future = client.submit(uses_the_workers_memory)  # doctest: +SKIP

    Notes
    -----
    It is ``dask.annotate(executor=…)``, checked. With dask collections, take care that graph optimisation
    doesn't drop annotations: ``dask.config.set({"optimization.fuse.active": False})``.
    """
    if executor not in _EXECUTORS:
        raise ConfigurationError(
            f"executor={executor!r} is none that a task can ask for: use 'thread' or 'process'. Executors "
            "of your own go by dask.annotate(executor=...)."
        )
    with annotate(executor=executor):
        yield
