"""The six openers: a handle on the collection of that name, whoever made it first.

A handle does no I/O; at its first operation the collection is made, if there is none. `None` for an option
means: as it is, and for a new collection the default.
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
from skyward_dask.errors import ConfigurationError

Consistency = Literal["strong", "eventual"]
_CONSISTENCIES = ("strong", "eventual")
#: A thousand are made in a second, and meanwhile the scheduler has time for others; more workers are rare.
_MOST_SHARDS = 1000


def dict(
    name: str, *, shards: int | None = None, consistency: Consistency | None = None, client: Any = None
) -> Dict[Any, Any]:
    """A dict that all tasks and clients of a cluster share.

    Parameters
    ----------
    name : str
        1 to 200 characters.
    shards : int, optional
        Over how many workers' memory it spreads, up to 1,000; default 1. Operations on one key are
        linearizable whatever it is, those on many keys only with one shard.
    consistency : str, optional
        ``"strong"``, or ``"eventual"``: then what is read may be up to ``skyward.collections.staleness``
        (100 ms) old, but for what was written from the same process.
    client : distributed.Client, optional
        Whose cluster; else that of the task that calls, of `Compute`, or of the current client.

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
        name, client, shards=_count("shards", shards, _MOST_SHARDS), consistency=_checked(consistency)
    )


def set(
    name: str, *, shards: int | None = None, consistency: Consistency | None = None, client: Any = None
) -> Set[Any]:
    """A set that all tasks and clients of a cluster share.

    Parameters
    ----------
    name, shards, consistency, client
        As of `dict`.

    Returns
    -------
    Set
        A `MutableSet` whose `add` returns whether the member is new.

    Examples
    --------
    >>> if set("seen").add(url):  # doctest: +SKIP
    ...     fetch(url)
    """
    return Set(name, client, shards=_count("shards", shards, _MOST_SHARDS), consistency=_checked(consistency))


def counter(name: str, *, consistency: Consistency | None = None, client: Any = None) -> Counter:
    """A whole number that all tasks and clients of a cluster share.

    Parameters
    ----------
    name, consistency, client
        As of `dict`.

    Returns
    -------
    Counter

    Examples
    --------
    >>> counter("done").increment()  # doctest: +SKIP
    1
    """
    return Counter(name, client, consistency=_checked(consistency))


def queue(name: str, maxsize: int | None = None, *, client: Any = None) -> Queue[Any]:
    """A queue that all tasks and clients of a cluster share.

    Parameters
    ----------
    name, client
        As of `dict`.
    maxsize : int, optional
        Items at the most; default: any number.

    Returns
    -------
    Queue
        With the methods of `queue.Queue`, and its `Empty` and `Full`.

    Examples
    --------
    >>> queue("work").put(job)  # doctest: +SKIP
    """
    return Queue(name, client, maxsize=_count("maxsize", maxsize))


def barrier(name: str, n: int, *, client: Any = None) -> Barrier:
    """A barrier at which `n` tasks or clients of a cluster meet.

    Parameters
    ----------
    name, client
        As of `dict`.
    n : int
        How many have to come.

    Returns
    -------
    Barrier
        With the methods of `threading.Barrier`.

    Examples
    --------
    >>> barrier("epoch", 16).wait()  # doctest: +SKIP
    0
    """
    return Barrier(name, client, parties=checked_count("n", n))


def lock(name: str, *, client: Any = None) -> Lock:
    """A lock that tasks and clients of a cluster share.

    Parameters
    ----------
    name, client
        As of `dict`.

    Returns
    -------
    Lock
        First come, first served; not reentrant. It belongs to the run of the task that acquires it (in a
        process slot: to any of its threads), else to the actor, else to the client, and is released when its
        holder is gone.

    Examples
    --------
    >>> with lock("checkpoint"):  # doctest: +SKIP
    ...     save()
    """
    return Lock(name, client)


def _count(option: str, value: int | None, most: int = MOST) -> int | None:
    return None if value is None else checked_count(option, value, most)


def _checked(consistency: str | None) -> str | None:
    if consistency is None:
        return None
    for each in _CONSISTENCIES:
        if consistency == each:
            return each
    raise ConfigurationError(
        f"consistency must be one of {', '.join(map(repr, _CONSISTENCIES))}, not {consistency!r}."
    )
