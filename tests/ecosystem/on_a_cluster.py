"""A pytest plugin: what a test computes, it computes on one worker of a cluster, and not in its own process.

Dask's own helpers ask for ``scheduler="sync"``; here that name, and the others, mean the cluster; joblib's
default backend means it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from dask.base import named_schedulers
from distributed import Client, LocalCluster

_NAMES = ("sync", "synchronous", "single-threaded", "threads", "threading", "processes")


@pytest.fixture(scope="session", autouse=True)
def cluster_for_all() -> Iterator[None]:
    """One worker with two slots, in a process of its own under a nanny, as users have it."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
        ExitStack() as stack,
    ):
        named_schedulers.update(dict.fromkeys(_NAMES, client.get))
        with suppress(ImportError):
            from joblib import parallel_config

            stack.enter_context(parallel_config(backend="dask"))
        yield
