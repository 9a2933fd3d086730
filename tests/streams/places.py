"""Where generators run: one set of tests for thread slots, process slots and the event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

import skyward_dask as sky

PLACES = ("thread", "process", "loop")
#: Seconds that a test waits for something that takes well under one; generous for a loaded machine.
PATIENCE = 60


@dataclass(frozen=True)
class Place:
    """Submits generators to one place."""

    client: Client
    name: str

    def submit(self, generator: Callable[..., Iterator[Any]], *args: Any, **options: Any) -> Any:
        """The future of a generator's stream; on the loop, an asynchronous one that does the same."""
        if self.name == "loop":
            return self.client.submit(asynchronous(generator), *args, pure=False, **options)
        with sky.options(executor=self.name):
            return self.client.submit(generator, *args, pure=False, **options)

    def open(self, generator: Callable[..., Iterator[Any]], *args: Any, **options: Any) -> sky.Stream[Any]:
        found: sky.Stream[Any] = self.submit(generator, *args, **options).result(PATIENCE)
        return found


@contextmanager
def two_workers(slots: sky.Worker) -> Iterator[Client]:
    """A client of two workers with such slots each."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sky.install(client, slots)
        yield client


def asynchronous(generator: Callable[..., Iterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """The same generator as an asynchronous one."""

    async def steps(*args: Any) -> AsyncIterator[Any]:
        iterator = generator(*args)
        try:
            for item in iterator:
                yield item
        finally:
            iterator.close()  # type: ignore[attr-defined]

    return steps


def until(condition: Callable[[], bool], state: object = None) -> None:
    """Wait for something to happen; otherwise, the error shows the state."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it hasn't happened: {state}"
        time.sleep(0.005)


def note(path: str | Path, text: str) -> None:
    """Have the test see what a generator does."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


def notes(path: str | Path) -> list[str]:
    return Path(path).read_text().split() if Path(path).exists() else []
