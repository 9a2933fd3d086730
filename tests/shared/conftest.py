"""Clusters for tests that harm them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from distributed import Client, LocalCluster

import skyward_dask as sky


@pytest.fixture
def name() -> str:
    """Of a collection that no other test has."""
    return uuid4().hex


@contextmanager
def two_workers(executor: str) -> Iterator[Client]:
    """A client of two workers with two slots each; one that is lost comes back under another address."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor=executor))
        yield client


@pytest.fixture
def client(executor: str) -> Iterator[Client]:
    """Of two workers that no other test has."""
    with two_workers(executor) as client:
        yield client


@pytest.fixture(scope="module")
def shared_workers(executor: str) -> Iterator[Client]:
    with two_workers(executor) as client:
        yield client


@pytest.fixture
def mended(shared_workers: Client) -> Client:
    """Of two workers that the tests of a module kill one after the other: both are there again."""
    while len(shared_workers.nthreads()) != 2:
        time.sleep(0.01)
    return shared_workers
