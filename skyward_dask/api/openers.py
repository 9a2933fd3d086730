"""The six openers: each returns a handle to the collection of that name, whoever created it.

A handle does no I/O; its first operation creates the collection, if there is none. `None` for an option
means: as the collection has it, or the default for a new one.
"""

from __future__ import annotations

from typing import Any, Literal

from skyward_dask.api.barriers import Barrier
from skyward_dask.api.counters import Counter
from skyward_dask.api.dicts import Dict
from skyward_dask.api.handles import MOST, checked_count
from skyward_dask.api.locks import Lock
from skyward_dask.api.queues import Queue
from skyward_dask.api.sets import Set
from skyward_dask.arguments import takes_only
from skyward_dask.errors import ConfigurationError

Consistency = Literal["strong", "eventual"]
_CONSISTENCIES = ("strong", "eventual")
#: A thousand are created in a second, during which the scheduler can serve others; more workers are rare.
_MOST_SHARDS = 1000


@takes_only("A dict is created empty: fill it with update().")
def dict(
    name: str,
    *,
    shards: int | None = None,
    consistency: Consistency | None = None,
    replicas: int | None = None,
    client: Any = None,
) -> Dict[Any, Any]:
    """A dict that all tasks and clients of a cluster share.

    Parameters
    ----------
    name : str
        1 to 200 characters.
    shards : int, optional
        The number of parts, which spread over the workers, up to 1,000; default 1. Operations on one key are
        always linearizable, those on many keys only with one shard.
    consistency : str, optional
        ``"strong"``, or ``"eventual"``: then reads may be up to ``skyward.collections.staleness`` (100 ms)
        old, except for what the same process has written.
    replicas : int, optional
        How many standbys it has: 1 by default, which takes over if the host of the collection is lost; 0 for
        none, which is faster.
    client : distributed.Client, optional
        The client of the cluster to use; defaults to the cluster of the calling task, of the enclosing
        `Compute`, or of the current client.

    Returns
    -------
    Dict
        A `MutableMapping` with `compare_and_set` and `get_or_compute`; each operation has a twin
        ``<operation>_async``.

    Examples
    --------
    >>> cache = dict("cache")  # doctest: +SKIP
    >>> cache.get_or_compute("model", load_model)  # doctest: +SKIP
    """
    return Dict(
        name,
        client,
        shards=_count("shards", shards, _MOST_SHARDS),
        consistency=_checked(consistency),
        replicas=_replicas(replicas),
    )


@takes_only("A set is created empty: fill it with update().")
def set(
    name: str,
    *,
    shards: int | None = None,
    consistency: Consistency | None = None,
    replicas: int | None = None,
    client: Any = None,
) -> Set[Any]:
    """A set that all tasks and clients of a cluster share.

    Parameters
    ----------
    name, shards, consistency, replicas, client
        As for `dict`.

    Returns
    -------
    Set
        A `MutableSet` whose `add` returns whether the member was new.

    Examples
    --------
    >>> if set("seen").add(url):  # doctest: +SKIP
    ...     fetch(url)
    """
    return Set(
        name,
        client,
        shards=_count("shards", shards, _MOST_SHARDS),
        consistency=_checked(consistency),
        replicas=_replicas(replicas),
    )


@takes_only("A counter starts at 0; reset(value) sets it.")
def counter(
    name: str, *, consistency: Consistency | None = None, replicas: int | None = None, client: Any = None
) -> Counter:
    """An integer that all tasks and clients of a cluster share.

    Parameters
    ----------
    name, consistency, replicas, client
        As for `dict`.

    Returns
    -------
    Counter

    Examples
    --------
    >>> counter("done").increment()  # doctest: +SKIP
    1
    """
    return Counter(name, client, consistency=_checked(consistency), replicas=_replicas(replicas))


@takes_only("The name of a collection is text, and client a dask.distributed.Client.")
def queue(
    name: str, maxsize: int | None = None, *, replicas: int | None = None, client: Any = None
) -> Queue[Any]:
    """A queue that all tasks and clients of a cluster share.

    Parameters
    ----------
    name, replicas, client
        As for `dict`.
    maxsize : int, optional
        The greatest number of items; unlimited by default.

    Returns
    -------
    Queue
        It has the methods of the standard library's `queue.Queue`, and raises its `Empty` and `Full`.

    Examples
    --------
    >>> queue("work").put(job)  # doctest: +SKIP
    """
    return Queue(name, client, maxsize=_count("maxsize", maxsize), replicas=_replicas(replicas))


@takes_only("n is the number of parties.")
def barrier(name: str, n: int, *, replicas: int | None = None, client: Any = None) -> Barrier:
    """A barrier at which `n` tasks or clients of a cluster meet.

    Parameters
    ----------
    name, replicas, client
        As for `dict`.
    n : int
        The number of parties that have to arrive.

    Returns
    -------
    Barrier
        It has the methods of `threading.Barrier`.

    Examples
    --------
    >>> barrier("epoch", 16).wait()  # doctest: +SKIP
    0
    """
    return Barrier(name, client, parties=checked_count("n", n), replicas=_replicas(replicas))


@takes_only("A time limit is given to acquire(timeout=...).")
def lock(name: str, *, replicas: int | None = None, client: Any = None) -> Lock:
    """A lock that tasks and clients of a cluster share.

    Parameters
    ----------
    name, replicas, client
        As for `dict`.

    Returns
    -------
    Lock
        First come, first served; not reentrant. It is held by the run of the task that acquired it (in a
        process slot: by all of its threads), otherwise by the actor or the client, and is released when its
        holder is gone.

    Examples
    --------
    >>> with lock("checkpoint"):  # doctest: +SKIP
    ...     save()
    """
    return Lock(name, client, replicas=_replicas(replicas))


def _count(option: str, value: int | None, most: int = MOST) -> int | None:
    return None if value is None else checked_count(option, value, most)


def _replicas(value: int | None) -> int | None:
    if value is None or (not isinstance(value, bool) and value in (0, 1)):
        return value
    raise ConfigurationError(
        f"replicas must be 1, for a standby on another worker, or 0, for none, not {value!r}."
    )


def _checked(consistency: str | None) -> str | None:
    if consistency is None:
        return None
    for each in _CONSISTENCIES:
        if consistency == each:
            return each
    raise ConfigurationError(
        f"consistency must be one of {', '.join(map(repr, _CONSISTENCIES))}, not {consistency!r}."
    )
