"""Clusters for tests that harm them."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from distributed import Client, LocalCluster

import skyward_dask as sky


@pytest.fixture
def name() -> str:
    """Of a collection that no other test has."""
    return uuid4().hex


@pytest.fixture
def client(executor: str) -> Iterator[Client]:
    """Of two workers with two slots each; one that is lost comes back under another address."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor=executor))
        yield client
