"""Clusters that tests share: one of threads and one of processes, so that both executors pass one suite."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from hypothesis import HealthCheck, settings

import skyward_dask as sky

# an example has no time of its own: others use the machine too
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

EXECUTORS = ("thread", "process")


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    """Expected errors of tasks fill pages otherwise."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@pytest.fixture
def started(tmp_path: Path) -> str:
    """A fifo: a task opens it to say that it runs."""
    name = str(tmp_path / "started")
    os.mkfifo(name)
    return name


@pytest.fixture
def fifos(tmp_path: Path) -> tuple[str, str]:
    """Two fifos: a task says by the first that it runs, and waits for the other end of the second."""
    names = str(tmp_path / "started"), str(tmp_path / "release")
    for name in names:
        os.mkfifo(name)
    return names


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def shared_client(executor: str) -> Iterator[Client]:
    """A client of one worker in a process of its own, under a nanny, with two slots."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, sky.Worker(concurrency=2, executor=executor))
        yield client
