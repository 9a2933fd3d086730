"""A cluster that streams share, and the three places where a generator may run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import Client

import skyward_dask as sky
from tests.streams.places import PLACES, Place, two_workers


@pytest.fixture(scope="module")
def shared_client() -> Iterator[Client]:
    """Two workers with two thread slots each, and two processes for tasks that ask for one."""
    with two_workers(sky.Worker(concurrency=2, executor="thread")) as client:
        yield client


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, shared_client: Client) -> Place:
    return Place(shared_client, request.param)
