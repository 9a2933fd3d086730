"""Clusters on this machine, set up as the contenders need them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask.distributed import Client, LocalCluster

import skyward_dask as sky


@contextmanager
def dask_workers(workers: int, threads: int) -> Iterator[Client]:
    """Plain Dask: so many worker processes with so many threads each."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=threads, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def skyward_worker(slots: int, executor: str, **options: Any) -> Iterator[Client]:
    """One dask-worker with so many slots of ours."""
    with dask_workers(workers=1, threads=slots) as client:
        sky.install(client, sky.Worker(concurrency=slots, executor=executor, **options))
        yield client
