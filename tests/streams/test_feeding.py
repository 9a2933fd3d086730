"""Streams into tasks: `feed`, and parameters of a `sky.function` that are annotated as streams."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, get_worker, worker_client

import skyward_dask as sky
from skyward_dask.api.streaming import is_fed, streamed
from tests.streams.places import PATIENCE, Place, note, notes, until

if TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]


class Source:
    """An endless generator that says when it is closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[int]:
        try:
            for self.taken in range(1, 10**9):
                yield self.taken
        finally:
            self.closed.set()


def total(samples: Iterator[int]) -> int:
    return sum(samples)


async def total_async(samples: AsyncIterator[int]) -> int:
    return sum([n async for n in samples])


def first(samples: Iterator[int]) -> int:
    return next(samples)


def submit(place: Place, function: Callable[..., Any], *args: Any) -> Any:
    """On the loop, these functions' asynchronous twins."""
    if place.name == "loop":
        twins = {total: total_async}
        return place.client.submit(twins[function], *args, pure=False)
    with sky.options(executor=place.name):
        return place.client.submit(function, *args, pure=False)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_task_reads_what_the_client_feeds(place: Place, count: int) -> None:
    """All of it, in order."""
    fed = sky.feed(range(count), client=place.client)
    assert submit(place, total, fed).result(PATIENCE) == sum(range(count))


def test_asynchronous_iterables(place: Place) -> None:
    """They are stepped on the client's loop."""

    async def numbers() -> AsyncIterator[int]:
        for n in range(100):
            await asyncio.sleep(0)
            yield n

    assert submit(place, total, sky.feed(numbers(), client=place.client)).result(PATIENCE) == 4950


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_who_stops_reading_closes_the_source(shared_client: Client, executor: str) -> None:
    """Its `finally` runs, and it was never further ahead than the window."""
    source = Source()
    with sky.options(executor=executor):
        reader = shared_client.submit(first, sky.feed(source, client=shared_client), pure=False)
    assert reader.result(PATIENCE) == 1
    assert source.closed.wait(PATIENCE)
    assert source.taken <= 258


def test_an_error_of_the_source_is_raised_in_the_task(place: Place) -> None:
    """As itself, after the last good item; if that is a stream, at its reader too."""

    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("at the client")

    reader = submit(place, total, sky.feed(failing(), client=place.client))
    with pytest.raises(LookupError, match="at the client"):
        reader.result(PATIENCE)
    if place.name != "loop":
        stream = submit(place, doubling, sky.feed(failing(), client=place.client)).result(PATIENCE)
        assert next(stream) == 2
        with pytest.raises(LookupError, match="at the client"):
            next(stream)


def test_one_task_reads_what_is_fed(shared_client: Client) -> None:
    """As any stream, it has one reader."""
    fed = sky.feed(range(10), client=shared_client)
    assert shared_client.submit(total, fed, pure=False).result(PATIENCE) == 45
    with pytest.raises((sky.StreamTaken, sky.StreamBroken)):
        shared_client.submit(total, fed, pure=False).result(PATIENCE)


def test_feed_takes_iterables_of_a_client(shared_client: Client) -> None:
    """Bad input is refused where it is given."""
    with pytest.raises(sky.ConfigurationError, match="iterable, not 3"):
        sky.feed(3, client=shared_client)  # type: ignore[arg-type]
    with pytest.raises(sky.ConfigurationError, match="feed is for clients"):
        shared_client.submit(lambda: sky.feed([1]), pure=False).result(PATIENCE)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_what_is_fed_may_come_from_tasks_of_the_same_slot(shared_client: Client, executor: str) -> None:
    """A task that waits for an item holds no slot, for Dask neither: the task that makes the item begins."""
    client = shared_client
    one, _ = client.nthreads()

    def computed() -> Iterator[int]:
        for n in range(5):
            yield client.submit(abs, -n, workers=[one], pure=False).result(PATIENCE)

    sky.resize(client, 1, workers=[one])
    try:
        with sky.options(executor=executor):
            fed = sky.feed(computed(), client=client)
            assert client.submit(total, fed, workers=[one], pure=False).result(PATIENCE) == 10
    finally:
        sky.resize(client, 2)


def feeds(count: int) -> int:
    with worker_client() as client:
        found: int = client.submit(total, sky.feed(range(count), client=client), pure=False).result()
    return found


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_task_feeds_by_its_workers_client(shared_client: Client, executor: str) -> None:
    """It may be read in the task's own slot."""
    with sky.options(executor=executor):
        assert shared_client.submit(feeds, 300, pure=False).result(PATIENCE) == sum(range(300))


# --- both ways -----------------------------------------------------------------------------------------


@sky.function
def moving_average(samples: Iterator[float], window: int) -> Iterator[float]:
    last: deque[float] = deque(maxlen=window)
    for sample in samples:
        last.append(sample)
        yield sum(last) / len(last)


@sky.function
def mean(samples: Iterable[float] | None = None) -> float:
    values = list(samples or [])
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def module_compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=2, executor="process")) as compute:
        yield compute


def test_operators_feed_by_themselves(module_compute: sky.Compute) -> None:
    """Both ways; by position and by keyword."""
    averages = moving_average(iter(range(200)), window=3) >> module_compute
    assert isinstance(averages, sky.Stream)
    assert list(averages)[:4] == [0, 0.5, 1, 2]
    assert mean(samples=(n for n in range(3))) >> module_compute == 1
    assert mean([4, 6]) >> module_compute == 5
    pair = (moving_average([1, 3], 2) & mean(iter([1, 2]))) >> module_compute
    assert (list(pair[0]), pair[1]) == ([1, 2], 1.5)


@sky.function
def address_and_more(count: int) -> Iterator[Any]:
    yield get_worker().address
    yield from range(count)


def test_a_stream_from_every_node(shared_client: Client) -> None:
    """A list; each is read by itself."""
    streams = address_and_more(300) @ shared_client
    found = [list(stream) for stream in reversed(streams)]
    assert {each[0] for each in found} == set(shared_client.nthreads())
    assert all(each[1:] == list(range(300)) for each in found)


def test_closing_goes_to_the_client(module_compute: sky.Compute) -> None:
    """Whoever closes the output closes the input; so does a call that never reads."""
    source = Source()
    averages = moving_average(iter(source), window=3) >> module_compute
    assert next(averages) == 1
    averages.close()
    assert source.closed.wait(PATIENCE)

    @sky.function
    def ignores(samples: Iterator[int]) -> int:
        return 3

    assert ignores(iter(range(3))) >> module_compute == 3
    from skyward_dask.extension.client.feed import Feeds

    hosts = Feeds.of(module_compute.client).hosts
    until(lambda: len(hosts) == 0)


# --- which parameters ----------------------------------------------------------------------------------


def declared(
    a: Iterator[int],
    b: Iterable[int] | None,
    c: AsyncIterator[int] | None,
    d: Iterator[Nothing],
    e: list[int],
    f: int,
    *g: Iterator[int],
    h: Iterable[int] = (),
) -> None: ...


def test_which_parameters_are_streams() -> None:
    """As strings and in Optional; what can't be evaluated is recognised by its name."""
    assert set(streamed(declared)) == {"a", "b", "c", "d", "h"}
    assert streamed(len) == {}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("a", [1], True),
        ("a", "text", False),
        ("a", 3, False),
        ("b", [1], False),
        ("b", iter([1]), True),
        ("c", [1], True),
    ],
)
def test_which_arguments_are_fed(name: str, value: object, expected: bool) -> None:
    """A list for an `Iterable` is an ordinary argument."""
    assert is_fed(streamed(declared)[name], value) is expected


def doubling(samples: Iterator[int]) -> Iterator[int]:
    for n in samples:
        yield 2 * n


@pytest.mark.crash
def test_a_killed_task_closes_what_it_read(shared_client: Client, tmp_path: Path) -> None:
    """The source of a process that dies is closed, and the reader of its stream is told."""
    source = Source()

    def dies(samples: Iterator[int], path: str) -> Iterator[int]:
        yield next(samples)
        note(path, str(get_worker().address))
        os.kill(os.getpid(), 9)

    with sky.options(executor="process"):
        fed = sky.feed(source, client=shared_client)
        stream = shared_client.submit(dies, fed, str(tmp_path / "notes"), pure=False).result(PATIENCE)
    assert next(stream) == 1
    with pytest.raises(sky.StreamBroken, match="SIGKILL"):
        next(stream)
    assert source.closed.wait(PATIENCE)
    assert notes(tmp_path / "notes")
